"""A training as data: every setting that a run has, read from TOML and written back. Needs no torch.

``read_recipe("cub200-margin")`` reads one that comes along, ``read_recipe("mine.toml")`` a file.
"""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from embedkit import plugins
from embedkit.encoders.codes import check_bits
from embedkit.encoders.gru_options import GruOptions
from embedkit.errors import ConfigError, EmbedkitError, UnknownName
from embedkit.specs import parse_spec
from embedkit.training.datasets.registry import find_dataset

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["RECIPE", "Augment", "TrainingRecipe", "list_recipes", "read_recipe"]

DEFAULT_EPOCHS = 20.0
RECIPE = "recipe.toml"  # in a run folder
_FOLDER = Path(__file__).with_name("recipes")
_BUDGETS = ("epochs", "minutes", "steps")
_DIM = 128
_CHOICES = {
    "task": ("metric-learning", "image-text"),
    "head": ("", "linear", "divide", "blocks"),
    "start": ("", "lda", "ridge"),
    "finish": ("", "lda"),
    "sampler": ("balanced", "class", "domains", "pairs"),
    "precision": ("fp32", "bf16", "fp16"),
}
_LOSSES: dict[str, plugins.Group] = {"metric-learning": "losses", "image-text": "joint_losses"}
_DEFAULT_LOSSES = {"metric-learning": "npair", "image-text": "clip"}
_MOST = 10**9
_RANGES: dict[str, tuple[float, float]] = {
    "dim": (0, 8192),
    "batch": (2, 1_000_000),
    "per_class": (0, 10_000),
    "epochs": (0, 1e6),
    "minutes": (0, 1e6),
    "steps": (0, _MOST),
    "rate": (0, 1e3),
    "head_rate": (0, 1e3),
    "weight_decay": (0, 1e3),
    "warmup": (0, 0.9),
    "clip": (0, 1e9),
    "frozen": (0, 1),
    "lora": (0, 4096),
    "ema": (0, 0.999999),
    "memory": (0, _MOST),
    "memory_after": (0, _MOST),
    "pieces": (1, 10_000),
    "holdout": (0, 0.9),
    "patience": (0, _MOST),
    "validate": (0, _MOST),
    "seed": (0, 2**32 - 1),
    "augment.crop": (0.01, 1),
    "augment.colour": (0, 1),
    "augment.rotate": (0, 180),
    "augment.erase": (0, 1),
    "augment.size": (0, 2048),
}


@dataclass(frozen=True, slots=True)
class Augment:
    """How training pictures are varied.

    `flip`: left-right, every other picture. `crop`: the least share of the area that a random crop keeps; 1 is no
    crop. `colour`: strength of the jitter of brightness, contrast and saturation, 0 to 1. `rotate`: degrees, either
    way. `erase`: probability of random erasing (Zhong 2017). `size`: the side of training pictures, 0 for what the
    encoder takes; smaller ones train faster, and since crops enlarge what they show, what is then judged looks as
    large as what was learned (Touvron 2019, "Fixing the train-test resolution discrepancy").
    """

    flip: bool = True
    crop: float = 0.7
    colour: float = 0.2
    rotate: float = 0.0
    erase: float = 0.0
    size: int = 0


@dataclass(frozen=True, slots=True)
class TrainingRecipe:
    """Every setting of a training; docs/training.md has them as a table.

    `data`: path of a data set, or a table; `data_name`: which one, if its files do not tell. `task`: metric-learning
    from classes of pictures, or image-text from pictures with captions. `encoder`: the spec string or model folder to
    start from; its pooling is kept. `texts`: of image-text, the encoder of captions, which stays as it is, or
    ``gru``, a tower that learns. `dim`: of the embedding; 0 keeps the encoder's own vector without a new layer.
    `bits`: of a hash encoder, whose codes are the signs of the embedding; 0 is a float encoder. `head`: how its bits
    are made (linear, divide, blocks: `training/hash_heads.py`), empty for what the loss asks for. `start`: where the
    embedding layer starts: lda, at the discriminants of the training classes, ridge, of image-text, at the texts that
    pictures are likely to have, or empty, at random (codes by ITQ). `finish`: where it is set when the last batch is
    done: lda, at the discriminants of what the network then makes of training pictures, or empty, where the loss left
    it. `multi_scale`: Deep Ranking's three scales (Wang 2014). `loss`, `miner`: spec strings; no miner leaves the loss
    its own. `batch`: pictures, `per_class` of a class, 0 for what the loss asks for. `sampler`: balanced, class,
    domains (equally many sketches and pictures of each class), or pairs, which mines hard classes each epoch for
    N-pair. `epochs`, `minutes`, `steps`: the budget, at most one of them. `rate`: of the network; `head_rate`: of the
    embedding layer and a text tower, which the loss's own
    numbers follow. `warmup`: share of the budget with a rising rate, cosine afterwards. `clip`: greatest norm of the
    gradient, 0 for none. `frozen`: share of the network's parameter tensors, from the input on, that stay as they are.
    `lora`: the rank of adapters (Hu 2021) that learn in their place, the network staying as it is; 0 for none.
    `freeze_norm`: batch normalisation keeps its statistics. `ema`: decay of the average of weights that is kept as the
    model, 0 for none. `memory`: embeddings in a cross-batch memory; `memory_after`: batches before it is read.
    `pieces`: so many pieces of a batch go through the network one by one (gradient caching). `holdout`: share of the
    training classes kept for validation; `patience`: stop after so many validations without a better figure.
    `validate`: pictures judged after every epoch, 0 for none. `title`, `paper`, `figure`: what it is, whose setting,
    and the paper's figure that it aims at.
    """

    data: str = ""
    data_name: str = ""
    task: str = "metric-learning"
    encoder: str = "effnet-lite0(size=96)"
    texts: str = "minilm"
    dim: int = _DIM
    bits: int = 0
    head: str = ""
    start: str = ""
    finish: str = ""
    multi_scale: bool = False
    loss: str = "npair"
    miner: str = ""
    batch: int = 64
    per_class: int = 0
    sampler: str = "balanced"
    epochs: float = 0.0
    minutes: float = 0.0
    steps: int = 0
    rate: float = 3e-4
    head_rate: float = 3e-3
    weight_decay: float = 1e-4
    warmup: float = 0.05
    clip: float = 10.0
    frozen: float = 0.3
    lora: int = 0
    freeze_norm: bool = True
    ema: float = 0.0
    precision: str = "fp32"
    compile: bool = False
    memory: int = 0
    memory_after: int = 0
    pieces: int = 1
    holdout: float = 0.0
    patience: int = 0
    validate: int = 1000
    seed: int = 0
    augment: Augment = Augment()
    title: str = ""
    paper: str = ""
    figure: str = ""

    def changed(self, values: Mapping[str, Any]) -> TrainingRecipe:
        """With other values, by name (``augment.crop`` too); a text stands for what it says in TOML.

        A budget replaces the one that was set, bits a dim, and another task brings its loss along. Raises ConfigError,
        also for a dim where bits stay set.

        >>> TrainingRecipe(epochs=3).changed({"steps": 5, "augment.crop": "0.5"}).augment.crop
        0.5
        """
        flat, inner = self.as_dict(), asdict(self.augment)
        if "task" in values and "loss" not in values and values["task"] != self.task:
            flat["loss"] = _DEFAULT_LOSSES.get(str(values["task"]), self.loss)
        if any(name in values for name in _BUDGETS):
            flat |= {"epochs": 0.0, "minutes": 0.0, "steps": 0}
        if "bits" in values:
            flat["dim"] = _DIM
        for name, value in values.items():
            head, _, rest = name.partition(".")
            known = getattr(self.augment if head == "augment" and rest else self, rest or head, None)
            plain = _read(value) if isinstance(value, str) and not isinstance(known, str) else value
            if head == "augment" and rest:
                inner[rest] = plain
            else:
                flat[name] = plain
        made = TrainingRecipe.from_dict({**flat, "augment": inner})
        if "dim" in values and made.bits and made.dim != made.bits:
            raise ConfigError(
                f"dim = {made.dim} would be ignored: a code of bits = {made.bits} has a number for each bit. Set bits "
                "(--bits) instead of dim, or bits = 0 for floats"
            )
        return made

    def resolved(self) -> TrainingRecipe:
        """With 20 epochs where no budget is set, and as many dimensions as bits."""
        none = not any(getattr(self, name) for name in _BUDGETS)
        return replace(self, epochs=DEFAULT_EPOCHS if none else self.epochs, dim=self.bits or self.dim)

    def checked(self) -> TrainingRecipe:
        """`resolved`, and every value in its range. Raises ConfigError for what cannot be, UnknownName for a name."""
        for name, (low, high) in _RANGES.items():
            value = _value(self, name)
            if not low <= value <= high:  # which NaN is not either
                raise ConfigError(f"{name} = {value:g} is not a number of {low:g} to {high:g}")
        if self.dim == 1:
            raise ConfigError("dim = 1 cannot tell classes apart; take 2 or more, or 0 for the encoder's own vector")
        if self.bits:
            check_bits(self.bits)
        for name, known in _CHOICES.items():
            value = _value(self, name)
            if value not in known:
                empty = ", or leave it empty" if "" in known else ""
                raise ConfigError(f"{name} = {value!r} is not one of {', '.join(filter(None, known))}{empty}")
        self._check_names()
        self._check_together()
        return self.resolved()

    def _check_names(self) -> None:
        if not self.encoder:
            raise ConfigError("encoder is empty; name one such as 'effnet-lite0', or a model folder")
        plugins.find(_LOSSES[self.task], parse_spec(self.loss, kind="loss").name)
        if self.miner:
            parse_spec(self.miner, kind="miner")
        if self.data_name:
            find_dataset(self.data_name)

    def _check_together(self) -> None:
        budgets = [name for name in _BUDGETS if _value(self, name) > 0]
        if len(budgets) > 1:
            raise ConfigError(
                f"{' and '.join(budgets)} are both set; a training has one budget, so set the others to 0"
            )
        if self.bits and self.dim not in (_DIM, self.bits):
            raise ConfigError(
                f"dim = {self.dim} and bits = {self.bits} are both set; a code has a number for each bit, leave dim out"
            )
        if self.head and not self.bits:
            raise ConfigError(f"head = {self.head!r} makes bits, and bits is 0; set bits, or leave out head")
        if self.start and not (self.dim or self.bits):
            raise ConfigError(f"start = {self.start!r} sets an embedding layer, and dim = 0 has none; leave out start")
        if self.finish and not (self.dim or self.bits):
            raise ConfigError(f"finish = {self.finish!r} sets an embedding layer, and dim = 0 has none; leave it out")
        if self.patience and not (self.holdout and self.validate):
            raise ConfigError(
                "patience needs holdout > 0 and validate > 0: what is watched must be neither trained on nor the test"
            )
        if self.holdout and not self.validate:
            raise ConfigError(
                "holdout keeps classes away from training to judge them, and validate = 0 judges nothing; set validate "
                "to some pictures, or leave out holdout"
            )
        if self.memory_after and not self.memory:
            raise ConfigError("memory_after is set, but there is no memory; set memory to the embeddings it holds")
        if self.sampler == "pairs" and self.per_class not in (0, 2):
            raise ConfigError(f"sampler = 'pairs' takes 2 pictures of a class, not per_class = {self.per_class}")
        if self.sampler == "domains" and self.per_class % 2:
            raise ConfigError(
                "sampler = 'domains' takes as many sketches as pictures of a class, which per_class = "
                f"{self.per_class} cannot be; give an even number"
            )
        if self.per_class and self.batch < 2 * self.per_class:
            raise ConfigError(
                f"A batch of {self.batch} does not hold two classes of per_class = {self.per_class}; raise batch"
            )
        if self.task == "image-text":
            self._check_image_text()
        elif self.start == "ridge":
            raise ConfigError("start = 'ridge' needs captions; set task = 'image-text', or start = 'lda'")
        elif GruOptions.of(self.texts) is not None:
            raise ConfigError(
                f"texts = {self.texts!r} learns from captions; set task = 'image-text', or leave out texts"
            )
        if self.pieces > self.batch:
            raise ConfigError(f"A batch of {self.batch} cannot be cut into pieces = {self.pieces}")

    def _check_image_text(self) -> None:
        if self.miner or self.memory or self.sampler in ("domains", "pairs"):
            raise ConfigError(
                "task = 'image-text' compares within its batch: it takes no miner, no memory, and the sampler balanced "
                "or class"
            )
        if self.start == "lda":
            raise ConfigError("task = 'image-text' has captions, not classes, for start = 'lda'; set start = 'ridge'")
        if self.finish:
            raise ConfigError(
                f"task = 'image-text' has captions, not classes, for finish = {self.finish!r}; leave it out"
            )
        if self.start and self.bits:
            raise ConfigError(f"start = {self.start!r} is not for codes; leave out start, or bits")
        if not self.texts:
            raise ConfigError("texts is empty; name an encoder of texts such as 'minilm', or a model folder")
        if GruOptions.of(self.texts) is not None and self.start:
            raise ConfigError(
                f"start = {self.start!r} foretells vectors of texts that stay, and those of texts = {self.texts!r} are "
                "yet to be learned; leave out start"
            )

    def as_dict(self) -> dict[str, Any]:
        """Plain values; `augment` is a dict."""
        return asdict(self)

    def as_toml(self) -> str:
        """Every setting, the defaults too.

        >>> Augment().flip, "[augment]" in TrainingRecipe().as_toml()
        (True, True)
        """
        values = self.as_dict()
        augment = values.pop("augment")
        lines = [f"{name} = {_toml(value)}" for name, value in values.items()]
        lines += ["", "[augment]", *(f"{name} = {_toml(value)}" for name, value in augment.items())]
        return "\n".join(lines) + "\n"

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, source: str = "") -> TrainingRecipe:
        """Settings that are missing keep their defaults. `source`: the file that messages name. Raises ConfigError.

        >>> TrainingRecipe.from_dict({"epochs": 3, "augment": {"crop": 0.5}}).augment.crop
        0.5
        """
        where = f" (in {source})" if source else ""
        given = dict(values)
        inner = given.pop("augment", {})
        if not isinstance(inner, Mapping):
            raise ConfigError(f"The setting 'augment'{where} is not a table; write [augment] and its settings below it")
        augment = Augment(**_typed(Augment(), inner, "augment.", where))
        return cls(**_typed(cls(), given, "", where), augment=augment)


def read_recipe(text: str) -> TrainingRecipe:
    """A recipe that comes along, by name, or that of a ``.toml`` file. Raises ConfigError, UnknownName.

    >>> read_recipe("emoji-npair").data_name
    'emoji-zs'
    """
    path = _FOLDER / f"{text}.toml" if text in list_recipes() else Path(text)
    if not path.is_file():
        if path.suffix == ".toml" or len(path.parts) > 1:
            raise ConfigError(
                f"There is no recipe file {text!r}; the ones that come along: {', '.join(list_recipes())}"
            )
        raise UnknownName("recipe", text, list_recipes())
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:  # ValueError: no TOML, or no UTF-8
        raise ConfigError(f"The recipe {text!r} cannot be read: {error}") from error
    recipe = TrainingRecipe.from_dict(values, source=repr(text))
    try:
        recipe.checked()
    except EmbedkitError as error:
        raise ConfigError(f"The recipe {text!r} is not valid: {error}") from error
    return recipe


def list_recipes() -> tuple[str, ...]:
    """The recipes that come along, sorted."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.toml")))


def _value(recipe: TrainingRecipe, name: str) -> Any:
    head, _, inner = name.partition(".")
    value = getattr(recipe, head)
    return getattr(value, inner) if inner else value


_KINDS: dict[type, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text in quotes",
}


def _typed(default: Augment | TrainingRecipe, values: Mapping[str, Any], prefix: str, where: str) -> dict[str, Any]:
    """The values, each of the type of its default. Raises ConfigError."""
    kinds = {one.name: type(getattr(default, one.name)) for one in fields(default)}
    typed: dict[str, Any] = {}
    for name, value in values.items():
        if name not in kinds:
            near = difflib.get_close_matches(str(name), kinds, n=2)
            hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(kinds)}"
            raise ConfigError(f"There is no setting {prefix + str(name)!r}{where}; {hint}")
        kind = kinds[name]
        if kind is float and type(value) is int and abs(value) < 2**53:
            value = float(value)
        if type(value) is not kind:
            raise ConfigError(f"The setting {prefix + name!r}{where} is {value!r}, not {_KINDS[kind]}")
        typed[name] = value
    return typed


def _read(text: str) -> Any:
    """What a text says in TOML; the text itself, if that is nothing."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except ValueError:
        return text


def _toml(value: str | float | bool) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)
