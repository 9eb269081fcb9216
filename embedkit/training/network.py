"""The network that is trained: an encoder to start from, an embedding layer on it, and what of both learns."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from embedkit.encoders.contract import Encoder, EncoderSpec
from embedkit.encoders.folder import WEIGHTS, read_manifest
from embedkit.encoders.load import load_encoder, model_folder_of
from embedkit.encoders.model import JointEncoder
from embedkit.encoders.samples import SamplePicture
from embedkit.encoders.torch_model import PixelModel, TorchImageEncoder, state_fingerprint
from embedkit.errors import ConfigError, DataCorrupt
from embedkit.specs import parse_spec
from embedkit.training.adapters import adapter_parameters
from embedkit.training.hash_heads import build_head, head_of
from embedkit.training.losses.build import build_loss
from embedkit.training.losses.contract import Loss, PairLoss
from embedkit.training.losses.joint import JointLoss
from embedkit.training.memory import CrossBatchMemory
from embedkit.training.multi_scale import MultiScale
from embedkit.training.recipe import TrainingRecipe

if TYPE_CHECKING:
    from embedkit.encoders.preprocess import Preprocess
    from embedkit.types import IdArray

__all__ = [
    "TEXTS",
    "Built",
    "Objective",
    "as_encoder",
    "build_model",
    "build_objective",
    "parameter_groups",
    "set_modes",
    "started_from",
]

TEXTS = "texts."  # what the weights of a projection of texts are called, beside those of the network
Sample = Callable[[], Iterable[SamplePicture]]


class Objective(nn.Module):
    """Model and loss as one module, so that several processes keep both in step.

    uint8 or float32 pixels ``(n, height, width, 3)`` of 0..255 and labels ``(n,)`` in; the loss out, and the
    embeddings ``(n, dim)`` as they were, not scaled. Features ``(n, features)``, as `features` gives them, may
    stand for the pixels.
    """

    def __init__(self, model: PixelModel, loss: Loss | JointLoss) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def embed(self, pixels: Tensor) -> Tensor:
        """What the loss is given: embeddings, or features before the embedding layer if it asks for them."""
        given = self.features(pixels)
        return given if self.loss.takes_features else self.head(given)

    def features(self, pixels: Tensor) -> Tensor:
        """What comes before the embedding layer, ``(n, features)``; those that were made before are handed on."""
        if pixels.ndim == 2:
            return pixels
        given: Tensor = _stages(self.model)[:-1](self.model.features(pixels))
        return given

    @property
    def head(self) -> nn.Module:
        """The embedding layer."""
        return _stages(self.model)[-1]

    @property
    def body(self) -> list[nn.Parameter]:
        """The numbers before the embedding layer."""
        return [*self.model.network.parameters(), *_stages(self.model)[:-1].parameters()]

    def embeddings(self, given: Tensor) -> Tensor:
        """The embeddings of what `embed` gave, without a gradient."""
        with torch.no_grad():
            made: Tensor = self.head(given.float()) if self.loss.takes_features else given
            return made.detach().float()

    def cost(self, given: Tensor, labels: Tensor) -> Tensor:
        """The loss of what `embed` gave."""
        found: Tensor = self.loss(given, labels)
        return found

    def forward(self, pixels: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        given = self.embed(pixels)
        return self.cost(given, labels), self.embeddings(given)


def _stages(model: PixelModel) -> nn.Sequential:
    assert isinstance(model.pooling, nn.Sequential)
    return model.pooling


@dataclass(frozen=True, slots=True)
class Built:
    """A model; `pictures`: what it takes, `features`: the numbers before its embedding layer, `dim`: after it.

    `layers`: the settings that the same layers can be built by, without the folder that their weights came from.
    """

    model: PixelModel
    pictures: Preprocess
    features: int
    dim: int
    layers: Mapping[str, Any]

    def encoder(self, model: PixelModel, recipe: TrainingRecipe, *, name: str, threads: int = 0) -> Encoder:
        """The model behind the encoder contract, as it is now. `threads`: of torch, 0 for one a core."""
        return as_encoder(model, self.pictures, recipe, name=name, threads=threads)

    def targets(self) -> Tensor | None:
        """What pictures of each label are expected near, ``(labels, m)``, where there is such a thing."""
        return None

    def beside(self, labels: IdArray, seed: int) -> tuple[Tensor, ...]:
        """What the objective is given beside pictures and labels ``(n,)``; what is drawn follows `seed`."""
        del labels, seed
        return ()


def build_model(recipe: TrainingRecipe, sample: Sample) -> Built:
    """The model that a recipe starts from; random numbers follow torch's seed.

    `sample` gives training pictures, for a pooling that starts from them (NetVLAD). A model folder that
    embedkit trained goes on with its own layers. Raises ConfigError, DataCorrupt, UnknownName.
    """
    folder = model_folder_of(recipe.encoder)
    built = _fresh(recipe, sample) if folder is None else _trained(folder, recipe)
    if recipe.augment.size:
        _check_size(built.model, recipe)
    return built


def _fresh(recipe: TrainingRecipe, sample: Sample | None) -> Built:
    start = _start(recipe.encoder, sample)
    network, pooling, pictures = start.network, start.pooling, start.recipe
    if recipe.multi_scale:
        network, pooling = MultiScale(network, pooling), nn.Identity()
    model = PixelModel(network, nn.Sequential(OrderedDict(pool=pooling, flat=nn.Flatten(1))), pictures)
    features = _length(model, pictures.size)
    dim, head = recipe.bits or recipe.dim, head_of(recipe) if recipe.bits else ""
    embedding: nn.Module = build_head(head or "linear", features, dim) if dim else nn.Identity()
    _stages(model).add_module("embedding", embedding)
    layers = {"encoder": recipe.encoder, "dim": dim, "multi_scale": recipe.multi_scale}
    layers |= {"bits": recipe.bits, "head": head}
    return Built(model.to(memory_format=torch.channels_last), pictures, features, dim or features, layers)


@dataclass(frozen=True, slots=True)
class _Start:
    """The torch parts of an encoder for pictures."""

    network: nn.Module
    pooling: nn.Module
    recipe: Preprocess


def _start(text: str, sample: Sample | None) -> _Start:
    spec = parse_spec(text)
    if spec.options.get("pooling") == "netvlad" or (
        spec.name in ("effnet-lite0", "torchvision") and "dim" in spec.options
    ):
        return _start_fitted(text, sample)
    encoder = load_encoder(text, runtime="torch")
    pictures = encoder.pictures if isinstance(encoder, JointEncoder) else encoder
    if not isinstance(pictures, TorchImageEncoder):
        encoder.close()
        raise ConfigError(f"The encoder {text!r} takes no pictures; train effnet-lite0, torchvision:NAME or hf:NAME")
    return _Start(pictures.model.network, pictures.model.pooling, pictures.recipe)


def _start_fitted(text: str, sample: Sample | None) -> _Start:
    """A pooling that starts from pictures; without a sample, one of the same shape."""
    from embedkit.encoders.fit import fit_encoder, torch_backbone
    from embedkit.encoders.poolings import NetVLAD

    if "dim" in parse_spec(text).options:
        raise ConfigError(f"dim in the encoder {text!r} whitens vectors; in training give the recipe's dim instead")
    if sample is not None:
        encoder, _ = fit_encoder(text, sample())
        return _Start(encoder.model.network, encoder.model.pooling, encoder.recipe)
    backbone = torch_backbone(text)
    pooling = NetVLAD(channels=backbone.probe().shape[1], clusters=backbone.options.clusters)
    return _Start(backbone.network, pooling, backbone.recipe)


def _length(model: PixelModel, size: tuple[int, int]) -> int:
    """The length of what the model makes of a picture of (height, width)."""
    black = torch.zeros(2, *size, 3, dtype=torch.uint8, device=model.mean.device)
    with torch.no_grad():
        return int(model(black).shape[1])


def _check_size(model: PixelModel, recipe: TrainingRecipe) -> None:
    """Raises ConfigError where the network takes pictures of its own size only, as vision transformers may."""
    side = recipe.augment.size
    model.eval()
    try:
        _length(model, (side, side))
    except (RuntimeError, ValueError, IndexError, AssertionError) as error:
        reason = " ".join(str(error).split())[:160]
        raise ConfigError(
            f"The encoder {recipe.encoder!r} takes no pictures of augment.size = {side} ({reason}); leave out "
            "augment.size, or take a network of convolutions such as effnet-lite0"
        ) from error


def _trained(folder: Path, recipe: TrainingRecipe) -> Built:
    """The model of a run folder, with its weights."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    stored = read_manifest(folder).training.get("recipe")
    if stored is None:
        raise ConfigError(
            f"{str(folder)!r} was exported, not trained; start from the encoder it was made of: "
            f"{read_manifest(folder).source!r}"
        )
    before = TrainingRecipe.from_dict(stored)
    fits = recipe.bits == before.bits if before.bits or recipe.bits else recipe.dim in (0, before.dim)
    if not fits or recipe.multi_scale != before.multi_scale:
        made = f"codes of bits={before.bits}" if before.bits else f"vectors of dim={before.dim}"
        raise ConfigError(
            f"{str(folder)!r} makes {made} and multi_scale={before.multi_scale}; "
            "to start from it, the recipe must say the same"
        )
    _check_layers(folder, before, recipe)
    built = _fresh(before, None)
    try:
        stored_weights = load_file(str(folder / WEIGHTS))
        mine = {name: tensor for name, tensor in stored_weights.items() if not name.startswith(TEXTS)}
        built.model.load_state_dict(mine)
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise DataCorrupt(f"{folder / WEIGHTS}: these are not the weights of {before.encoder!r} ({reason})") from error
    return built


def _check_layers(folder: Path, before: TrainingRecipe, recipe: TrainingRecipe) -> None:
    """Raises ConfigError where the recipe asks for another last layer than the one that the run `before` brings."""
    name, anew = repr(str(folder)), f"or start from {before.encoder!r}, of which it was made"
    if recipe.start:
        raise ConfigError(
            f"start = {recipe.start!r} sets an embedding layer, and {name} brings its own; leave out start, {anew}"
        )
    if not recipe.bits:
        return
    asked, kept = head_of(recipe), head_of(before)
    if recipe.head and asked != kept:
        raise ConfigError(f"head = {asked!r} cannot replace the head {kept!r} of {name}; leave out head, {anew}")
    if asked != kept and asked != "linear":  # a head that the loss is made for
        raise ConfigError(
            f"The loss {recipe.loss!r} wants the head {asked!r}, and {name} has {kept!r}; set head = {kept!r} to go on "
            f"with that, {anew}"
        )


def build_objective(built: Built, recipe: TrainingRecipe, *, classes: int) -> Objective:
    """The model with the loss that the recipe names. Raises ConfigError, UnknownName."""
    loss = build_loss(recipe.loss, dim=built.dim, classes=classes, miner=recipe.miner)
    if loss.makes_codes and not recipe.bits:
        raise ConfigError(f"The loss {recipe.loss!r} makes binary codes; say how long they are, such as bits = 64")
    if loss.takes_features:
        loss.attach(_stages(built.model)[-1], built.features)
    if recipe.memory:
        if not isinstance(loss, PairLoss):
            raise ConfigError(f"The loss {recipe.loss!r} compares no pairs and takes no memory; leave memory out")
        loss = CrossBatchMemory(loss, size=recipe.memory, dim=built.dim, after=recipe.memory_after)
    return Objective(built.model, loss)


def started_from(model: PixelModel) -> nn.Module:
    """The network that a recipe names: of three scales the deep one, since the shallow paths start at random."""
    network = model.network
    return network.network if isinstance(network, MultiScale) else network


def set_modes(objective: Objective, recipe: TrainingRecipe) -> None:
    """Training mode, but for what stays as it is: frozen parameters, and batch normalisation if the recipe says so.

    `recipe.frozen` counts the parameter tensors of the network that is started from, from its input on; with
    `recipe.lora` all of them but the adapters stay.
    """
    objective.train()
    network = started_from(objective.model)
    parameters = list(network.parameters())
    learning = list(adapter_parameters(network))
    still = len(parameters) if learning else round(recipe.frozen * len(parameters))
    for parameter in parameters[:still]:
        parameter.requires_grad_(False)
    for parameter in learning:
        parameter.requires_grad_(True)
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            still = module.weight is not None and not module.weight.requires_grad
            if recipe.freeze_norm or still:
                module.eval()


def parameter_groups(objective: Objective, recipe: TrainingRecipe) -> list[dict[str, Any]]:
    """Groups for an optimiser: network and pooling, embedding layers, the loss's own numbers.

    Vectors (biases, normalisation) and the loss's numbers do not decay. Raises ConfigError when nothing of the model
    learns.
    """
    body = objective.body
    head = [one for one in objective.model.parameters() if not any(one is other for other in body)]
    groups: list[dict[str, Any]] = []
    for parameters, rate in ((body, recipe.rate), (head, recipe.head_rate)):
        learning = [one for one in parameters if one.requires_grad]
        matrices, vectors = [one for one in learning if one.ndim > 1], [one for one in learning if one.ndim <= 1]
        groups.append({"params": matrices, "lr": rate, "weight_decay": recipe.weight_decay})
        groups.append({"params": vectors, "lr": rate, "weight_decay": 0.0})
    groups = [group for group in groups if group["params"]]
    if not groups:
        raise ConfigError(f"With frozen={recipe.frozen:g} and dim={recipe.dim} nothing is left to learn; lower frozen")
    own = [one for one in objective.loss.parameters() if one.requires_grad]
    if own:
        groups.append({"params": own, "lr": recipe.head_rate * objective.loss.rate, "weight_decay": 0.0})
    return groups


def as_encoder(
    model: PixelModel, pictures: Preprocess, recipe: TrainingRecipe, *, name: str, threads: int = 0
) -> TorchImageEncoder:
    """The model behind the encoder contract, as it is now. `threads`: of torch, 0 for one a core."""
    model.eval()
    identity = {**pictures.as_dict(), "encoder": recipe.encoder, "dim": recipe.dim}
    spec = EncoderSpec(
        name=name,
        modalities=("image",),
        dim=_length(model, pictures.size),
        fingerprint=state_fingerprint(model, identity | ({"bits": recipe.bits} if recipe.bits else {})),
        kind="binary" if recipe.bits else "float",
        normalized=not recipe.bits,
        input_size=pictures.size,
    )
    return TorchImageEncoder(spec, pictures, model, threads=threads)
