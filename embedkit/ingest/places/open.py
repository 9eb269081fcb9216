"""From a path or URL to the place where it lies."""

from __future__ import annotations

import os
from contextlib import closing

from embedkit.ingest.places.archives import Archive, ArchivePlace, archive_kind, split_archive
from embedkit.ingest.places.contract import Place
from embedkit.ingest.places.local import LocalPlace, file_validator, local_path
from embedkit.ingest.places.streams import spooled

__all__ = ["is_web", "locate", "open_archive", "outer_path", "validator_at"]


def is_web(text: str) -> bool:
    """Whether it is an http(s) URL."""
    return text[:8].lower().startswith(("http://", "https://"))


def locate(text: str) -> tuple[Place, str]:
    """The place of a path or URL, and the path there. An archive stands for its inside.

    Raises MissingExtra, OSError.
    """
    inside = split_archive(text)
    if inside is None and (kind := _whole_archive(text)):
        inside = split_archive(f"{kind}://::{text}")
    if inside is None:
        return _outside(text)
    outer = outer_path(inside.outer)
    return ArchivePlace(open_archive(f"{inside.kind}://::{outer}"), inside.kind, outer), inside.member


def _outside(text: str) -> tuple[Place, str]:
    path = local_path(text)
    if path is not None:
        return LocalPlace(), os.path.abspath(path)
    if is_web(text):
        from embedkit.ingest.places.web import WebPlace

        return WebPlace(), text
    from embedkit.ingest.places.remote import RemotePlace

    folder, _, name = text.rstrip("/").rpartition("/")
    if not folder:
        return RemotePlace(text, afresh=True), ""
    if not folder.endswith(":/"):
        return RemotePlace(folder, afresh=True), name
    if folder.lower().endswith("memory:/"):
        return RemotePlace(f"{folder}/", afresh=True), name
    return RemotePlace(text, afresh=True), ""


def _whole_archive(text: str) -> str | None:
    path = local_path(text)
    if path is not None:
        return archive_kind(path) if os.path.isfile(path) else None
    return archive_kind(text.partition("?")[0] if is_web(text) else text)


def outer_path(outer: str) -> str:
    """The address of an archive, whatever the working directory."""
    path = local_path(outer)
    return outer if path is None or split_archive(outer) else os.path.abspath(path)


def open_archive(uri: str) -> Archive:
    """The archive that holds a member. Raises MissingExtra, OSError."""
    inside = split_archive(uri)
    if inside is None:
        raise OSError("it names no archive")
    outer = inside.outer
    name = outer.partition("?")[0] if is_web(outer) else outer
    if (nested := split_archive(outer)) is None:
        place, path = _outside(outer)
        try:
            file = place.open(path, seek=True)
            validator = file_validator(os.fstat(file.fileno())) if isinstance(place, LocalPlace) else None
            return Archive(file, inside.kind, name, place, validator=validator)
        except BaseException:
            place.close()
            raise
    with closing(open_archive(outer)) as around:
        inner = spooled(around.open(nested.member))
        return Archive(inner, inside.kind, nested.member, validator=around.validator)


def validator_at(uri: str) -> str | None:
    """That of a local file as it is now, or of the local archive that holds it."""
    while (inside := split_archive(uri)) is not None:
        uri = inside.outer
    path = local_path(uri)
    try:
        return None if path is None else file_validator(os.stat(path))
    except (OSError, ValueError):
        return None
