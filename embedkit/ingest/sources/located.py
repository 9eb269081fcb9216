"""From what the user typed to a place and a path, with every failure as one BadSource."""

from __future__ import annotations

from embedkit.errors import BadSource
from embedkit.ingest.places.contract import Entry, Place, reason_of
from embedkit.ingest.places.open import locate
from embedkit.urls import redact

__all__ = ["located"]


def located(text: str) -> tuple[Place, str, Entry]:
    """The caller closes the place. Raises BadSource when nothing is there, MissingExtra."""
    place: Place | None = None
    try:
        place, path = locate(text)
        found = place.find(path)
        if found is None:
            raise BadSource(f"There is no catalog {redact(text)!r}; check the path or the URL")
    except (OSError, ValueError) as error:
        if place is not None:
            place.close()
        raise BadSource(f"The catalog {redact(text)!r} cannot be read: {reason_of(error)}") from error
    except BaseException:
        if place is not None:
            place.close()
        raise
    return place, path, found
