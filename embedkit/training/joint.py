"""Pictures and texts in one space: the network of pictures, an encoder of texts that stays or a tower that learns."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from embedkit.encoders.builtin import minilm_folder
from embedkit.encoders.choose import open_folder
from embedkit.encoders.contract import Encoder
from embedkit.encoders.export import export_encoder
from embedkit.encoders.fingerprint import fingerprint_of
from embedkit.encoders.folder import ONNX, TEXT_ONNX, TOKENIZER, WEIGHTS, read_manifest
from embedkit.encoders.gru import GruTower
from embedkit.encoders.gru_options import GruOptions
from embedkit.encoders.load import model_folder_of
from embedkit.encoders.model import JointEncoder
from embedkit.encoders.projected import Sentences, TextFiles
from embedkit.encoders.text_recipe import Tokens
from embedkit.encoders.torch_model import PixelModel
from embedkit.encoders.words import WORD_RECIPE, build_words
from embedkit.errors import BadSource, ConfigError, DataCorrupt
from embedkit.specs import parse_spec
from embedkit.training.datasets.contract import Captions, Split
from embedkit.training.losses.joint import JointLoss, build_joint_loss
from embedkit.training.network import TEXTS, Built, Objective, as_encoder
from embedkit.training.processes import joined
from embedkit.training.recipe import TrainingRecipe
from embedkit.training.texts import FrozenTexts, LearnedTexts, TextSide

if TYPE_CHECKING:
    from embedkit.encoders.preprocess import Preprocess
    from embedkit.types import IdArray

__all__ = ["JointBuilt", "JointModel", "JointObjective", "build_joint_objective", "with_texts"]


class JointModel(PixelModel):
    """A `PixelModel` with what takes texts into its space: a layer after vectors that stay, or a tower."""

    def __init__(self, model: PixelModel, texts: nn.Module, recipe: Preprocess) -> None:
        super().__init__(model.network, model.pooling, recipe)
        self.texts = texts


class JointObjective(Objective):
    """Pixels, labels and a caption for each picture in; the loss and embeddings out.

    Captions are vectors ``(n, m)`` or tokens ``(n, length)``, whichever the model's `texts` take. The loss is that of
    the batches of all processes together.
    """

    def __init__(self, model: JointModel, loss: JointLoss) -> None:
        super().__init__(model, loss)

    def cost(self, given: Tensor, labels: Tensor, captions: Tensor | None = None) -> Tensor:
        assert captions is not None
        assert isinstance(self.model, JointModel)
        found: Tensor = self.loss(*joined(given.float(), self.model.texts(captions).float(), labels))
        return found

    def forward(self, pixels: Tensor, labels: Tensor, captions: Tensor | None = None) -> tuple[Tensor, Tensor]:
        given = self.embed(pixels)
        return self.cost(given, labels, captions), self.embeddings(given)


@dataclass(frozen=True, slots=True)
class JointBuilt(Built):
    """`texts`: the captions of the training split, and what they become before the layers that learn."""

    texts: TextSide

    def encoder(self, model: PixelModel, recipe: TrainingRecipe, *, name: str, threads: int = 0) -> Encoder:
        assert isinstance(model, JointModel)
        pictures = as_encoder(model, self.pictures, recipe, name=name, threads=threads)
        parts = [one.encode() for one in (pictures.spec.fingerprint, self.texts.fingerprint)]
        spec = replace(pictures.spec, modalities=("image", "text"), fingerprint=fingerprint_of(parts, {}))
        pictures.spec = spec
        return JointEncoder(spec, pictures, self.texts.encoder(spec, model.texts))

    def targets(self) -> Tensor | None:
        return self.texts.means()

    def beside(self, labels: IdArray, seed: int) -> tuple[Tensor, ...]:
        return (self.texts.drawn(labels, seed),)


def with_texts(built: Built, recipe: TrainingRecipe, train: Split) -> JointBuilt:
    """The model with what learns of texts: of random numbers, or that of the run folder that it goes on from.

    Raises BadSource, ConfigError, DataCorrupt, MissingExtra.
    """
    if train.captions is None:
        raise BadSource("The data set has no captions")
    folder = model_folder_of(recipe.encoder)
    known = _stored(folder, recipe) if folder is not None else {}
    learn = _frozen if GruOptions.of(recipe.texts) is None else _learned
    side, learned = learn(built, recipe, train.captions, folder if known else None)
    if known:
        try:
            learned.load_state_dict(known)
        except RuntimeError as error:
            raise DataCorrupt(f"{folder}: what learned of its texts is not of texts = {recipe.texts!r}") from error
    values = {one.name: getattr(built, one.name) for one in fields(Built)}
    values["model"] = JointModel(built.model, learned, built.pictures).to(memory_format=torch.channels_last)
    return JointBuilt(**values, texts=side)


def _frozen(
    built: Built, recipe: TrainingRecipe, captions: Captions, before: Path | None
) -> tuple[TextSide, nn.Module]:
    """Texts of an encoder that stays, and the layer after it; with ``dim = 0`` there is none, on neither side."""
    sentences = _sentences(recipe.texts)
    layer: nn.Module = nn.Linear(sentences.spec.dim, built.dim)
    if recipe.bits:
        _even(layer, sentences.spec.dim)
    if before is None and not built.layers["dim"]:
        if sentences.spec.dim != built.dim:
            raise ConfigError(
                f"With dim = 0 pictures and texts must have vectors of one length, but {recipe.encoder!r} gives "
                f"{built.dim} numbers and {recipe.texts!r} {sentences.spec.dim}; set dim"
            )
        layer = nn.Identity()
    return FrozenTexts(captions, sentences), layer


def _learned(
    built: Built, recipe: TrainingRecipe, captions: Captions, before: Path | None
) -> tuple[TextSide, nn.Module]:
    """Texts of a tower that learns, whose words are those of the captions, or of the run `before`."""
    options = GruOptions.of(recipe.texts)
    assert options is not None
    words = build_words(captions.texts, least=options.least) if before is None else _words(before)
    return LearnedTexts(captions, words), GruTower(len(Tokens(words, WORD_RECIPE)), built.dim, options)


def _words(folder: Path) -> str:
    """The vocabulary of a run folder. Raises DataCorrupt."""
    try:
        return (folder / TOKENIZER).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise DataCorrupt(f"{folder / TOKENIZER}: the words that the run learned cannot be read: {error}") from error


@torch.no_grad()
def _even(layer: nn.Module, width: int) -> None:
    """Numbers of a mean square of 1, as the layer of pictures starts with: a random layer gives 1 / (3 width)."""
    assert isinstance(layer, nn.Linear)
    layer.weight.mul_((3 * width) ** 0.5)
    layer.bias.zero_()


def _stored(folder: Path, recipe: TrainingRecipe) -> dict[str, Tensor]:
    """What learned of the texts of a run folder; nothing where it was trained without. Raises ConfigError."""
    from safetensors.torch import load_file

    state = load_file(str(folder / WEIGHTS))
    known = {name.removeprefix(TEXTS): tensor for name, tensor in state.items() if name.startswith(TEXTS)}
    before = read_manifest(folder).training["recipe"].get("texts", recipe.texts)
    if known and before != recipe.texts:
        raise ConfigError(
            f"{str(folder)!r} learned with texts={before!r}; to start from it, set texts to the same, "
            f"not {recipe.texts!r}"
        )
    return known


def _sentences(text: str) -> Sentences:
    """An encoder of texts as files that run without torch. Raises ConfigError where it takes no texts."""
    folder = model_folder_of(text)
    spec = parse_spec(text) if folder is None else None
    if spec is not None and spec.name == "minilm":
        folder = minilm_folder(spec)
    temporary = None
    if folder is None:
        temporary = Path(tempfile.mkdtemp(prefix="embedkit-texts-"))
        folder = export_encoder(text, temporary / "texts")
    manifest = read_manifest(folder, name=text)
    if "text" not in manifest.spec.modalities:
        raise ConfigError(f"The encoder {text!r} takes no texts; set texts to one that does, such as 'minilm'")
    encoder = open_folder(folder, name=text, runtime="onnx")
    if isinstance(encoder, JointEncoder):
        made = Sentences(encoder.texts, TextFiles(folder / TEXT_ONNX, folder / TOKENIZER, manifest.text or {}))
    else:
        made = Sentences(encoder, TextFiles(folder / ONNX, folder / TOKENIZER, manifest.preprocess))
    if temporary is not None:
        weakref.finalize(made, shutil.rmtree, temporary, ignore_errors=True)
    return made


def build_joint_objective(built: JointBuilt, recipe: TrainingRecipe, *, classes: int) -> JointObjective:
    """The model with the loss that the recipe names. Raises ConfigError, UnknownName."""
    assert isinstance(built.model, JointModel)
    loss = build_joint_loss(recipe.loss, dim=built.dim, classes=classes)
    if loss.makes_codes and not recipe.bits:
        raise ConfigError(f"The loss {recipe.loss!r} makes binary codes; say how long they are, such as bits = 64")
    return JointObjective(built.model, loss)
