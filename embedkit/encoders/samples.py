"""Pictures that something is fitted to: the pixels of the good ones, and a word on those that cannot be decoded."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from embedkit.errors import BadImage

if TYPE_CHECKING:
    from embedkit.types import ByteArray

__all__ = ["SamplePicture", "decoded"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SamplePicture:
    """The bytes of a file, and what a message calls it."""

    name: str
    data: bytes


def decoded(
    pictures: Iterable[SamplePicture], prepare: Callable[[bytes], ByteArray], limit: int
) -> Iterator[ByteArray]:
    """What `prepare` makes of the first `limit` that can be decoded; no more are asked for.

    A warning counts those that cannot, and names the first with its reason.
    """
    good, bad, first = 0, 0, ""
    for picture in pictures:
        try:
            pixels = prepare(picture.data)
        except BadImage as error:
            first = first or f"{picture.name}: {error}"
            bad += 1
            continue
        good += 1
        yield pixels
        if good == limit:
            break
    if bad:
        _log.warning("%d pictures cannot be decoded and are left out; %d are used. The first is %s", bad, good, first)
