"""The parts of a Hugging Face model, from the hub, its cache or a folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedkit.errors import ConfigError, FetchFailed
from embedkit.specs import SpecText

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Parts", "load_parts", "read_json"]

_UNUSED = ("pooler", "mask_token", "logit_")  # weights that a base model has and many published files lack


@dataclass(frozen=True, slots=True)
class Parts:
    """`processor` None: it takes no pictures. `tokenizer` None: no texts.

    `pooled`: whether the weights of the model's pooler, if it has one, were published.
    """

    model: nn.Module
    tokenizer: Any
    processor: Any
    pooled: bool

    @property
    def joint(self) -> bool:
        """Whether pictures and texts share one space, as in CLIP."""
        return self.tokenizer is not None and self.processor is not None


def load_parts(transformers: Any, spec: SpecText) -> Parts:
    """Weights come as safetensors only, and code of the model's own is never run. Raises ConfigError, FetchFailed."""
    try:
        with _quiet(transformers):
            model, pooled = _model(transformers, spec)
            config: Any = model.config
            joint = hasattr(model, "get_text_features") and hasattr(model, "get_image_features")
            seeing = joint or hasattr(config, "num_channels") or hasattr(config, "image_size")
            tokenizer = _tokenizer(transformers, spec) if joint or not seeing else None
            processor = _processor(transformers, spec) if seeing else None
    except (OSError, ValueError, ImportError, KeyError, RuntimeError) as error:
        raise _not_loaded(spec, error) from error
    return Parts(model, tokenizer, processor, pooled)


def read_json(transformers: Any, spec: SpecText, name: str) -> Any:
    """A JSON file beside the model; None where there is none. Raises FetchFailed."""
    try:
        found = transformers.utils.cached_file(
            spec.argument, name, _raise_exceptions_for_missing_entries=False, **_revision(spec)
        )
        return None if found is None else json.loads(Path(found).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _not_loaded(spec, error) from error


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Without the bar of a loading that takes a moment, and the table of weights that are not needed.

    The bar of a download belongs to the hub's library and stays.
    """
    words = transformers.utils.logging
    level, bar = words.get_verbosity(), words.is_progress_bar_enabled()
    words.set_verbosity_error()
    words.disable_progress_bar()
    try:
        yield
    finally:
        words.set_verbosity(level)
        if bar:
            words.enable_progress_bar()


def _revision(spec: SpecText) -> dict[str, str]:
    return {"revision": spec.options["revision"]} if "revision" in spec.options else {}


def _options(spec: SpecText) -> dict[str, Any]:
    """Left open, transformers asks on the terminal whether to run the code that a model brings along."""
    return {"trust_remote_code": False, **_revision(spec)}


def _model(transformers: Any, spec: SpecText) -> tuple[nn.Module, bool]:
    import torch

    model, report = transformers.AutoModel.from_pretrained(
        spec.argument, use_safetensors=True, output_loading_info=True, **_options(spec)
    )
    missing = set(report["missing_keys"])
    if vital := sorted(name for name in missing if not any(part in name for part in _UNUSED)):
        raise ConfigError(
            f"The weights of {spec.argument!r} lack {vital[0]!r} ({len(vital)} are missing); choose another model"
        )
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name in missing:  # else they are random, and every loading has a fingerprint of its own
                tensor.zero_()
    return model.float().eval(), not any("pooler" in name for name in missing)


def _tokenizer(transformers: Any, spec: SpecText) -> Any:
    """The tokenizer that the folder names; where its package is missing, the one that its tokenizer.json holds."""
    try:
        return transformers.AutoTokenizer.from_pretrained(spec.argument, **_options(spec))
    except (OSError, ValueError, ImportError, TypeError) as error:
        try:
            return transformers.PreTrainedTokenizerFast.from_pretrained(spec.argument, **_revision(spec))
        except (OSError, ValueError, ImportError, TypeError):
            raise OSError(str(error)) from error


def _processor(transformers: Any, spec: SpecText) -> Any:
    return transformers.AutoImageProcessor.from_pretrained(spec.argument, **_options(spec))


def _not_loaded(spec: SpecText, error: Exception) -> FetchFailed:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
    return FetchFailed(
        f"The model {spec.argument!r} cannot be loaded ({reason}); "
        "check the name and the network, give a folder, or use an encoder that needs none: effnet-lite0 or minilm"
    )
