"""Poolings that are fitted to pictures when an encoder is written out: NetVLAD, whitened R-MAC, PCA-whitening.

``pooling=netvlad`` takes its centres from the local features of the pictures (k-means), ``pooling=rmac`` whitens
the vectors of regions, and ``dim=`` reduces by PCA-whitening what any other pooling gives.
"""

from __future__ import annotations

import os
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from embedkit import plugins
from embedkit.encoders.load import model_folder_of
from embedkit.encoders.poolings import RMAC, NetVLAD, make_pooling
from embedkit.encoders.preprocess import Preprocess
from embedkit.encoders.samples import SamplePicture, decoded
from embedkit.encoders.torch_model import Backbone, PixelModel, TorchImageEncoder, encoder_of
from embedkit.encoders.whitening import fit_whitening
from embedkit.errors import ConfigError
from embedkit.specs import parse_spec

if TYPE_CHECKING:
    from torch import Tensor

    from embedkit.types import ByteArray

__all__ = ["fit_encoder", "torch_backbone"]

_PICTURES = 1_000  # more bring little; a whitening to many dimensions takes two for each
_LOCAL_FEATURES = 50_000  # for k-means, as in the NetVLAD paper
_BATCH = 32
_SEED = 0


def fit_encoder(text: str, pictures: Iterable[SamplePicture]) -> tuple[TorchImageEncoder, int]:
    """The encoder with its pooling fitted to the first pictures that can be decoded, and how many those were.

    Raises ConfigError when nothing is to be fitted, or there are too few pictures.
    """
    spec = parse_spec(text)
    backbone = torch_backbone(text)
    options = backbone.options
    if not options.fitted and options.name != "rmac":
        raise ConfigError(
            f"{text!r} has nothing to be fitted; say pooling=netvlad, pooling=rmac or dim=, or leave out fit"
        )
    needed = _needed(backbone)
    with tempfile.TemporaryFile() as file:
        count = _prepare(pictures, backbone.recipe, file, max(_PICTURES, 2 * options.dim))
        if count < needed:
            raise ConfigError(
                f"Fitting {text!r} needs at least {needed:,} good pictures, not {count:,}; "
                "give more, or choose fewer clusters or a smaller dim"
            )
        pixels = np.memmap(file, np.uint8, "r", shape=(count, *backbone.recipe.size, 3))
        with _in_one_thread(), torch.no_grad():
            pooling = _fitted(backbone, pixels)
    return encoder_of(spec, backbone, pooling), count


@contextmanager
def _in_one_thread() -> Iterator[None]:
    """How many threads share a sum decides on its last bits, and the fingerprint of an encoder is of what is fitted."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def torch_backbone(text: str) -> Backbone:
    """The backbone of a spec string whose pooling can be fitted. Raises ConfigError, UnknownName."""
    spec = parse_spec(text)
    if model_folder_of(text) is None:
        if spec.name == "effnet-lite0":
            from embedkit.encoders.effnet_torch import backbone as effnet_lite0

            return effnet_lite0(spec)
        if spec.name == "torchvision":
            from embedkit.encoders.torchvision_models import backbone as torchvision

            return torchvision(spec)
        plugins.find("encoders", spec.name)
    raise ConfigError(f"{text!r} cannot be fitted to pictures; effnet-lite0 and torchvision:NAME can")


def _needed(backbone: Backbone) -> int:
    """The fewest pictures that could do."""
    options, features = backbone.options, backbone.probe()
    if options.name == "rmac":
        regions = RMAC().regions(features).shape[1]
        return -(-((options.dim or features.shape[1]) + 1) // regions)
    places = features[0, 0].numel()
    centres = -(-options.clusters // places) if options.name == "netvlad" else 1
    return max(centres, options.dim + 1 if options.dim else 1)


def _prepare(pictures: Iterable[SamplePicture], recipe: Preprocess, file: IO[bytes], limit: int) -> int:
    """Write the pixels of the first `limit` good pictures; how many there were."""
    good = 0
    for pixels in decoded(pictures, recipe, limit):
        file.write(pixels.tobytes())
        good += 1
    file.flush()
    return good


def _fitted(backbone: Backbone, pixels: ByteArray) -> nn.Module:
    options = backbone.options
    if options.name == "rmac":
        regions = torch.cat([RMAC().regions(features).flatten(0, 1) for features in _features(backbone, pixels)])
        return RMAC(whitening=fit_whitening(regions, options.dim or regions.shape[1]))
    pooling = _netvlad(backbone, pixels) if options.name == "netvlad" else make_pooling(options.name)
    if not options.dim:
        return pooling
    vectors = torch.cat([pooling(features).flatten(1) for features in _features(backbone, pixels)])
    return nn.Sequential(pooling, fit_whitening(vectors, options.dim))


def _netvlad(backbone: Backbone, pixels: ByteArray) -> NetVLAD:
    """Its centres come from equally many random places of every picture."""
    share = -(-_LOCAL_FEATURES // len(pixels))
    generator = torch.Generator().manual_seed(_SEED)
    local = []
    for features in _features(backbone, pixels):
        chosen = torch.rand(len(features), features[0, 0].numel(), generator=generator).argsort(dim=1)[:, :share]
        places = features.flatten(2).transpose(1, 2)
        local.append(places.take_along_dim(chosen.unsqueeze(2), dim=1).flatten(0, 1))
    pooling = NetVLAD(channels=local[0].shape[1], clusters=backbone.options.clusters)
    pooling.fit_centres(torch.cat(local), seed=_SEED)
    return pooling


def _features(backbone: Backbone, pixels: ByteArray) -> Iterator[Tensor]:
    """The feature maps, a batch at a time; as many batches at once as there are cores, each in one thread."""
    model = PixelModel(backbone.network, nn.Identity(), backbone.recipe).to(memory_format=torch.channels_last)

    @torch.no_grad()
    def made(start: int) -> Tensor:
        return model.features(torch.from_numpy(np.array(pixels[start : start + _BATCH])))

    cores = os.cpu_count() or 1
    waiting: deque[Future[Tensor]] = deque()
    with ThreadPoolExecutor(cores, thread_name_prefix="embedkit-fit") as pool:
        for start in range(0, len(pixels), _BATCH):
            waiting.append(pool.submit(made, start))
            if len(waiting) > cores:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
