"""The training pictures: decoded in threads ahead of the network, and kept decoded where they fit into memory."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from embedkit.encoders.preprocess import Preprocess
from embedkit.errors import BadImage, BadSource
from embedkit.training.datasets.contract import Split
from embedkit.training.datasets.pixels import split_pixels

if TYPE_CHECKING:
    from embedkit.types import ByteArray, FloatArray, IdArray

    Waiting: TypeAlias = tuple[list[int], dict[int, Future[ByteArray | None]]]

__all__ = ["PictureBatch", "Pictures"]

_KEPT = 2 * 1024**3  # bytes of decoded pictures
_AHEAD = 4  # batches
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class PictureBatch:
    """`rows` of the split, `pixels` uint8 ``(n, height, width, 3)``, `labels` int64 ``(n,)``.

    Where a network that does not learn has seen them, features ``(n, f)`` float32 stand for the pixels.
    """

    rows: IdArray
    pixels: ByteArray | FloatArray
    labels: IdArray


class Pictures:
    """A split as batches of pixels. A context manager.

    A picture that cannot be read is left out of its batch; `failures` holds the reason by its path.
    """

    def __init__(self, split: Split, recipe: Preprocess, *, threads: int = 0, keep: int | None = None) -> None:
        """`keep`: bytes of decoded pictures, 2 GiB or a quarter of the memory if that is less."""
        self.split, self._recipe = split, recipe
        self.threads = threads or os.cpu_count() or 1
        self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="embedkit-decode")
        self.failures: dict[str, str] = {}
        whole = len(split) * int(np.prod(recipe.size)) * 3
        self._kept: ByteArray | None = (
            np.empty((len(split), *recipe.size, 3), np.uint8) if whole <= (_room() if keep is None else keep) else None
        )
        self._held = np.zeros(len(split), np.bool_)

    def batches(self, plan: Iterable[list[int]]) -> Iterator[PictureBatch]:
        """A batch for each of a plan, in its order; an empty one, if nothing of it can be read.

        Raises BadSource when no picture of the split can be read.
        """
        waiting: deque[Waiting] = deque()
        for rows in plan:
            waiting.append((rows, {row: self._pool.submit(self._pixels, row) for row in self._unknown(rows)}))
            if len(waiting) > _AHEAD:
                yield self._taken(waiting.popleft())
        while waiting:
            yield self._taken(waiting.popleft())

    def _unknown(self, rows: list[int]) -> set[int]:
        return {row for row in rows if not self._held[row] and self.split.paths[row] not in self.failures}

    def _taken(self, batch: Waiting) -> PictureBatch:
        planned, futures = batch
        decoded = {row: future.result() for row, future in futures.items()}
        good = [row for row in planned if self._held[row] or decoded.get(row) is not None]
        rows = np.array(good, np.int64)
        if not good:
            self._check()
        if self._kept is not None:
            return PictureBatch(rows, self._kept[rows], self.split.labels[rows])
        read = [pixels for row in good if (pixels := decoded[row]) is not None]
        pixels = np.stack(read) if read else np.empty((0, *self._recipe.size, 3), np.uint8)
        return PictureBatch(rows, pixels, self.split.labels[rows])

    def _check(self) -> None:
        if self.failures.keys() >= set(self.split.paths):
            path, reason = next(iter(self.failures.items()))
            raise BadSource(f"None of the {len(self.split):,} pictures can be read; the first is {path}: {reason}")

    def _pixels(self, row: int) -> ByteArray | None:
        try:
            pixels = split_pixels(self.split, row, self._recipe)
        except BadImage as error:
            path = self.split.paths[row]
            if path not in self.failures:
                self.failures[path] = str(error)
                _log.warning("A picture is left out of the training: %s: %s", path, error)
            return None
        if self._kept is not None:
            self._kept[row] = pixels
            self._held[row] = True
        return pixels

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Pictures:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _room() -> int:
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # not on this system
        return _KEPT
    return min(_KEPT, memory // 4)
