"""The pictures of a split as vectors: decoded in threads, encoded in as many as the encoder takes."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from embedkit.codes import signs
from embedkit.encoders.contract import Encoder
from embedkit.errors import BadImage
from embedkit.training.datasets.contract import Split
from embedkit.training.datasets.pixels import split_pixels

if TYPE_CHECKING:
    from embedkit.training.datasets.contract import BoolArray
    from embedkit.types import ByteArray, FloatArray, VectorArray

__all__ = ["Encoded", "EncodingProgress", "ProgressCallback", "encode_split"]

_BATCH = 32
_AHEAD = 4  # batches that are decoded ahead of the encoder


@dataclass(frozen=True, slots=True)
class EncodingProgress:
    """A moment of an evaluation: pictures in all, and done; `failed` of them could not be read."""

    total: int
    seen: int
    failed: int
    note: str = ""


ProgressCallback: TypeAlias = Callable[[EncodingProgress], None]


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """`vectors` (m, dim) float32 of the pictures that could be read, `good` (n,) bool which those are.

    `failures`: (path, reason) of the others.
    """

    vectors: FloatArray
    good: BoolArray
    failures: tuple[tuple[str, str], ...]


def encode_split(
    encoder: Encoder,
    split: Split,
    *,
    threads: int = 0,
    progress: Callable[[int, int], None] | None = None,
    numbers: bool = False,
) -> Encoded:
    """Vectors of a split. `threads`: that decode, 0 for one a core. `progress` is told (done, failed).

    The bits of a binary encoder become ±1, for which the inner product orders as the Hamming distance does; with
    `numbers` its vectors are what the bits are the signs of. A picture that cannot be read is left out and named.
    """
    encode = encoder.numbers if numbers else encoder.encode
    vectors = np.zeros((len(split), encoder.spec.dim), np.float32)
    good = np.zeros(len(split), np.bool_)
    failures: list[tuple[str, str]] = []
    done = 0
    with (
        ThreadPoolExecutor(threads or os.cpu_count() or 1, thread_name_prefix="embedkit-decode") as decoders,
        ThreadPoolExecutor(encoder.concurrency, thread_name_prefix="embedkit-encode") as encoders,
    ):
        batches = _batches(encoder, split, decoders, failures)
        waiting: deque[tuple[list[int], Future[VectorArray]]] = deque()
        for rows, pixels in batches:
            waiting.append((rows, encoders.submit(encode, np.stack(pixels))))
            while len(waiting) > encoder.concurrency + 1:
                done += _taken(waiting.popleft(), vectors, good)
                _tell(progress, done, len(failures))
        while waiting:
            done += _taken(waiting.popleft(), vectors, good)
            _tell(progress, done, len(failures))
    return Encoded(vectors if good.all() else vectors[good], good, tuple(failures))


def _taken(batch: tuple[list[int], Future[VectorArray]], vectors: FloatArray, good: BoolArray) -> int:
    rows, future = batch
    found = future.result()
    vectors[rows] = signs(found.view(np.uint8), vectors.shape[1]) if found.dtype == np.uint8 else found
    good[rows] = True
    return len(rows)


def _tell(progress: Callable[[int, int], None] | None, done: int, failed: int) -> None:
    if progress is not None:
        progress(done + failed, failed)


def _batches(
    encoder: Encoder, split: Split, pool: ThreadPoolExecutor, failures: list[tuple[str, str]]
) -> Iterator[tuple[list[int], list[ByteArray]]]:
    """Rows and their pixels, a batch at a time; a few batches are decoded ahead."""
    waiting: deque[tuple[int, Future[ByteArray]]] = deque()
    rows: list[int] = []
    pixels: list[ByteArray] = []
    for row in range(len(split) + _BATCH * _AHEAD):
        if row < len(split):
            waiting.append((row, pool.submit(split_pixels, split, row, encoder.prepare)))
        if row < _BATCH * _AHEAD - 1 or not waiting:
            continue
        place, future = waiting.popleft()
        try:
            pixels.append(future.result())
            rows.append(place)
        except BadImage as error:
            failures.append((split.paths[place], str(error)))
        if len(rows) == _BATCH:
            yield rows, pixels
            rows, pixels = [], []
    if rows:
        yield rows, pixels
