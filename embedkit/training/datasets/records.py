"""Pictures that lie in one file side by side, as in CIFAR's binary version; ``data_batch_1.bin#7`` is the eighth."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from embedkit.errors import BadImage, BadSource

if TYPE_CHECKING:
    from embedkit.types import IdArray

__all__ = ["record_bytes", "record_labels", "record_path"]

_ADDRESS = re.compile(r"(.+\.bin)#(\d+)")
_SIDE = 32
_LENGTH = 1 + 3 * _SIDE * _SIDE  # a label, then the planes red, green and blue, each row by row


def record_path(file: str, place: int) -> str:
    """The address of one picture."""
    return f"{file}#{place}"


def record_labels(file: str) -> IdArray:
    """The label of every picture of a file, (n,) int64. Raises BadSource."""
    try:
        values = np.fromfile(file, np.uint8)
    except OSError as error:
        raise BadSource(f"{file}: it cannot be read: {error.strerror or error}") from error
    if not len(values) or len(values) % _LENGTH:
        raise BadSource(f"{file}: {len(values):,} bytes are no records of {_LENGTH:,}; fetch the binary version again")
    return values.reshape(-1, _LENGTH)[:, 0].astype(np.int64)


def record_bytes(path: str) -> bytes | None:
    """A picture as a file in the format PPM, None if the path is not an address of one. Raises BadImage."""
    found = _ADDRESS.fullmatch(path)
    if found is None:
        return None
    try:
        with Path(found[1]).open("rb") as file:
            file.seek(int(found[2]) * _LENGTH)
            values = file.read(_LENGTH)
    except OSError as error:
        raise BadImage(f"it cannot be read: {error.strerror or error}") from error
    if len(values) != _LENGTH:
        raise BadImage("the file ends before it")
    planes = np.frombuffer(values, np.uint8)[1:].reshape(3, _SIDE, _SIDE)
    return b"P6 %d %d 255\n" % (_SIDE, _SIDE) + planes.transpose(1, 2, 0).tobytes()
