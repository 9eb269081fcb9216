"""From a path or URL to the place where it lies."""

from __future__ import annotations

import os
from contextlib import closing

from embedkit.ingest.places.archives import Archive, ArchivePlace, archive_kind, split_archive
from embedkit.ingest.places.contract import Place
from embedkit.ingest.places.local import LocalPlace, local_path
from embedkit.ingest.places.streams import spooled

__all__ = ["is_web", "locate", "open_archive", "outer_path"]


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
        return RemotePlace(text), ""
    if not folder.endswith(":/"):
        return RemotePlace(folder), name
    return (RemotePlace(f"{folder}/"), name) if folder.lower().endswith("memory:/") else (RemotePlace(text), "")


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
            return Archive(place.open(path, seek=True), inside.kind, name, place)
        except BaseException:
            place.close()
            raise
    with closing(open_archive(outer)) as around:
        return Archive(spooled(around.open(nested.member)), inside.kind, nested.member)
