"""A random sample of the pictures or the titles of a catalog, the same one every time."""

from __future__ import annotations

import hashlib
import heapq
import logging
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from embedkit.config import FetchSettings
from embedkit.encoders.samples import SamplePicture, decoded
from embedkit.errors import BadImage, FetchFailed, FetchTimeout
from embedkit.ingest.fetch import FetchedImage, Fetcher, is_remote
from embedkit.ingest.sources.contract import Source
from embedkit.types import Record
from embedkit.urls import redact

if TYPE_CHECKING:
    from embedkit.encoders.contract import Encoder
    from embedkit.types import Modality, VectorArray

__all__ = ["sample_pictures", "sample_vectors"]

_MOST = 20_000  # locators kept in memory, however long the catalog is
_AHEAD = 32  # remote pictures on their way at once
_BATCH = 32  # pictures or titles that are encoded together
_FIELDS: Mapping[Modality, str] = {"image": "image", "text": "title"}
_log = logging.getLogger(__name__)


def sample_pictures(
    source: Source, *, settings: FetchSettings | None = None, seed: int = 0
) -> Generator[SamplePicture, None, None]:
    """Up to 20,000 pictures in an order that depends on the keys of their products and `seed` alone.

    They are read as they are asked for. What cannot be read is left out; a warning counts those and names the first.
    Raises BadSource if the catalog as a whole fails.
    """
    chosen = iter(_some(source, "image", seed))
    lost, first = 0, ""
    try:
        with closing(Fetcher(settings or FetchSettings())) as fetcher:
            while chunk := list(islice(chosen, _AHEAD)):
                for fetched in _read(chunk, fetcher):
                    if isinstance(fetched, SamplePicture):
                        yield fetched
                    else:
                        first = first or str(fetched)
                        lost += 1
    finally:
        if lost:
            _log.warning(
                "%d pictures of %s cannot be read and are left out of the sample. The first is %s",
                *(lost, source.name, first),
            )


def sample_vectors(
    source: Source,
    encoder: Encoder,
    modalities: Sequence[Modality],
    count: int,
    *,
    settings: FetchSettings | None = None,
    seed: int = 0,
) -> list[VectorArray]:
    """What an encoder makes of up to `count` records: a vector ``(dim,)``, or the bytes of a code, each.

    `modalities`: the first of them that the catalog has at all, pictures or titles, is encoded; pictures that cannot be
    read are left out, with a warning. Raises BadSource if the catalog as a whole fails.
    """
    found: list[VectorArray] = []
    modality = next((one for one in modalities if _some(source, _FIELDS[one], seed)), None)
    if modality == "text":
        titles = _some(source, "title", seed)[:count]
        for start in range(0, len(titles), _BATCH):
            found.extend(encoder.encode(titles[start : start + _BATCH]))
    if modality == "image":
        with closing(sample_pictures(source, settings=settings, seed=seed)) as pictures:
            pixels = decoded(pictures, encoder.prepare, count)
            while batch := list(islice(pixels, _BATCH)):
                found.extend(encoder.encode(np.stack(batch)))
    return found


def _some(source: Source, what: str, seed: int) -> list[str]:
    """A field of the records that have it, in an order by chance."""
    marked = (
        (_mark(one.key, seed), value)
        for one in source.records()
        if isinstance(one, Record) and (value := getattr(one, what))
    )
    return [value for _, value in heapq.nsmallest(_MOST, marked)]


def _mark(key: str, seed: int) -> bytes:
    return hashlib.blake2b(f"{seed} {key}".encode("utf-8", "surrogateescape"), digest_size=16).digest()


def _read(images: Sequence[str], fetcher: Fetcher) -> Iterator[SamplePicture | Exception]:
    """Remote pictures are all asked for before the first is waited for."""
    asked: list[str | Future[FetchedImage]] = [fetcher.submit(one) if is_remote(one) else one for one in images]
    for image, one in zip(images, asked, strict=True):
        name = redact(image)
        try:
            data = (fetcher.read_local(one) if isinstance(one, str) else one.result()).data
            yield SamplePicture(name, data) if data is not None else BadImage(f"{name}: the host sent no picture")
        except (BadImage, FetchFailed, FetchTimeout) as error:
            yield error
