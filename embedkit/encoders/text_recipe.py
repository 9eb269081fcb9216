"""How texts become the tokens that a text encoder takes, without transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from embedkit.errors import ConfigError, DataCorrupt

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["TOKEN_INPUTS", "TextRecipe", "Tokens"]

TOKEN_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


@dataclass(frozen=True, slots=True)
class TextRecipe:
    """The recipe, stored with the model and part of its fingerprint; the tokenizer is a file of its own.

    `max_tokens`: where a text is cut. `inputs`: what the model takes, in its order. `padding`: to the ``longest``
    text of a batch, or always ``full`` length (what SigLIP learned with). `pad_id`: the token that pads.
    `lower`: whether texts are lower-cased before the tokenizer sees them. `alone`: the model takes one text at a time.
    """

    max_tokens: int
    inputs: tuple[str, ...] = ("input_ids", "attention_mask")
    padding: Literal["longest", "full"] = "longest"
    pad_id: int = 0
    lower: bool = False
    alone: bool = False

    def __post_init__(self) -> None:
        known = self.padding in ("longest", "full") and set(self.inputs) <= set(TOKEN_INPUTS)
        if not known or self.max_tokens < 1 or not self.inputs:
            raise ConfigError(f"{self} is no recipe for texts")

    def as_dict(self) -> dict[str, Any]:
        values = {**asdict(self), "inputs": list(self.inputs)}
        if not self.alone:
            del values["alone"]  # the fingerprints of earlier models do not know it
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TextRecipe:
        """Raises ConfigError when a field is missing, unknown or bad."""
        try:
            return cls(**{**values, "inputs": tuple(values["inputs"])})
        except (TypeError, KeyError) as error:
            raise ConfigError(f"the recipe for texts does not fit: {error}") from error


class Tokens:
    """A ``tokenizer.json``, its path or what it says, and a recipe.

    Texts in, arrays of int64 ``(n, length)`` by input name out.
    """

    def __init__(self, tokenizer: Path | str, recipe: TextRecipe) -> None:
        """Raises DataCorrupt."""
        from tokenizers import Tokenizer

        read = Tokenizer.from_str if isinstance(tokenizer, str) else Tokenizer.from_file
        try:
            self._tokenizer: Any = read(str(tokenizer))
        except Exception as error:
            raise DataCorrupt(f"{tokenizer}: the tokenizer cannot be read: {error}") from error
        self._recipe = recipe
        self._tokenizer.enable_truncation(recipe.max_tokens)
        length = recipe.max_tokens if recipe.padding == "full" else None
        self._tokenizer.enable_padding(pad_id=recipe.pad_id, length=length)

    def __len__(self) -> int:
        """How many tokens it knows."""
        return int(self._tokenizer.get_vocab_size())

    def __call__(self, texts: Sequence[str]) -> dict[str, npt.NDArray[np.int64]]:
        wanted = [text.lower() for text in texts] if self._recipe.lower else list(texts)
        found = self._tokenizer.encode_batch(wanted)
        given = {
            "input_ids": [one.ids for one in found],
            "attention_mask": [one.attention_mask for one in found],
            "token_type_ids": [one.type_ids for one in found],
        }
        return {name: np.array(given[name], np.int64) for name in self._recipe.inputs}
