"""From a path to a data set: which one it is, whether it is whole, and its splits."""

from __future__ import annotations

import importlib
import logging
import os
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from embedkit.errors import BadSource
from embedkit.training.datasets.contract import DataSet
from embedkit.training.datasets.registry import DATASETS, DataSetInfo, find_dataset
from embedkit.training.datasets.tree import Tree

__all__ = ["DataSetCheck", "SplitCheck", "check_dataset", "open_dataset"]

_DEPTH = 2  # archives are unpacked into a folder of their own, or two
_WIDTH = 200  # a folder with more folders holds classes
_TABLES = ("csv", "captions")  # which are, or may be, a file
_NAMED = 20  # missing files that a check names
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SplitCheck:
    """A split as it is, and as its owners count it; None where they publish no number. `captions`: 0 where none are."""

    name: str
    images: int
    classes: int
    captions: int
    official_images: int | None
    official_classes: int | None


@dataclass(frozen=True, slots=True)
class DataSetCheck:
    """What `check_dataset` found.

    `absent`: lists and folders that must be there and are not. `missing`: how many pictures the lists name that are
    not there, `missing_first` the first of them. `problems`: what else is wrong. `owner`: where it is published.
    """

    name: str
    root: str
    protocol: str
    splits: tuple[SplitCheck, ...]
    absent: tuple[str, ...]
    missing: int
    missing_first: tuple[str, ...]
    problems: tuple[str, ...]
    owner: str
    obtain: str
    without_caption: int = 0

    @property
    def complete(self) -> bool:
        """Whether everything is there, in the official numbers."""
        return not (self.absent or self.missing or self.problems)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "complete": self.complete}


def open_dataset(path: str | Path, *, name: str | None = None, plain: str = "folder") -> DataSet:
    """Read a data set. `name`: which one; found out from its files otherwise. `plain`: what any other folder is.

    Pictures that the lists name and the disk has not are left out with a warning. Raises BadSource, MissingExtra,
    UnknownName.
    """
    info, root = _found(Path(os.path.expanduser(path)), name, plain)
    data = _read(info, root)
    empty = [part for part, split in data.splits.items() if not len(split) and part != "train"]
    if empty:
        raise BadSource(
            f"{str(root)!r} is read as {info.name!r}, and there are no pictures to judge in {' or '.join(empty)}"
            f"{_lost(data)}; see what belongs there with: embedkit datasets check"
        )
    if data.pairs is not None and not len(data.pairs):
        raise BadSource(f"{str(root)!r} has no pair of which both pictures are there{_lost(data)}")
    if data.missing:
        _log.warning("%s: %s", root, _lost(data).removeprefix(", "))
    if data.without_caption:
        _log.warning("%s: %d pictures have no caption and are left out", root, data.without_caption)
    return data


def _lost(data: DataSet) -> str:
    if not data.missing:
        bare = data.without_caption
        return f"; {bare:,} have no caption: give a table of path and caption, or x.txt beside x.jpg" if bare else ""
    first = ", ".join([*data.missing[:3], *(["…"] if len(data.missing) > 3 else [])])
    return f", {len(data.missing):,} pictures that its lists name are not there ({first})"


def _read(info: DataSetInfo, root: Path) -> DataSet:
    module, _, function = info.target.partition(":")
    read = getattr(importlib.import_module(module), function)
    data: DataSet = read(root if root.is_file() else Tree(root))
    return data


def _found(path: Path, name: str | None, plain: str = "folder") -> tuple[DataSetInfo, Path]:
    """Which data set lies at a path, and in which folder exactly."""
    info = find_dataset(name) if name is not None else None
    if not path.exists():
        known = info or next((one for one in DATASETS if one.name == str(path)), None)
        raise BadSource(f"There is no data set at {str(path)!r}{_how(known)}")
    if path.is_file():
        if (name or "csv") not in _TABLES:
            raise BadSource(f"{str(path)!r} is a file, and {name!r} is a folder")
        return info or find_dataset("captions" if _has_captions(path) else "csv"), path
    if info is not None and info.name == "csv":
        raise BadSource(f"{str(path)!r} is a folder; give the table itself")
    trees = [Tree(folder) for folder in _near(path)]
    for least in (1.0, 0.5):  # the whole of its files, else half of them: what lacks is then named
        for one in [info] if info else [row for row in DATASETS if row.needs or row.name == "emoji-zs"]:
            root = _located(trees, one, least)
            if root is not None:
                return one, root
    return info or find_dataset(plain), path


def _has_captions(path: Path) -> bool:
    """Whether a table has a column of captions."""
    if path.suffix.lower() in (".jsonl", ".ndjson"):
        return True
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        names = file.readline().replace("\t", ",").lower().split(",")
    return "caption" in [name.strip().strip('"') for name in names]


def _how(info: DataSetInfo | None) -> str:
    if info is None or not info.owner:
        return "; give a folder or a table, see: embedkit datasets list"
    return f"; its owners publish it at {info.owner}. {info.obtain}".rstrip(". ") + "."


def _located(trees: Sequence[Tree], info: DataSetInfo, least: float) -> Path | None:
    """The first folder that has at least a share of what a data set needs."""
    emoji = info.name in ("emoji-zs", "emoji-captions")
    if not info.needs and not emoji:
        return trees[0].root
    for tree in trees:
        if emoji:
            if _has_emoji(tree):
                return tree.root
        elif _marked(tree, info) and 1 - len(_absent(tree, info)) / len(info.needs) >= least:
            return tree.root
    return None


def _near(path: Path) -> Iterator[Path]:
    """The folder itself, then those below it, level by level."""
    waiting = deque([(path, 0)])
    while waiting:
        folder, depth = waiting.popleft()
        yield folder
        if depth < _DEPTH:
            try:
                inner = [entry for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith(".")]
            except OSError as error:
                if depth:
                    continue  # a folder that may not be read holds no data set
                raise BadSource(f"The folder {str(folder)!r} cannot be read: {error.strerror or error}") from error
            if len(inner) <= _WIDTH:
                waiting.extend((Path(entry.path), depth + 1) for entry in sorted(inner, key=lambda one: one.name))


def _has_emoji(tree: Tree) -> bool:
    names = tree.folders()
    return any("emoji-datasource-" in name for name in [*names, *tree.folders("node_modules")]) or (
        tree.find("package/emoji.json", "emoji.json") is not None
    )


def _marked(tree: Tree, info: DataSetInfo) -> bool:
    if info.mark is None:
        return True
    path, text = info.mark
    found = tree.find(*path.split("|"))
    if found is None:
        return False
    with open(found, "rb") as file:
        return text.encode() in file.read(1_000)


def _absent(tree: Tree, info: DataSetInfo) -> tuple[str, ...]:
    return tuple(need for need in info.needs if tree.find(*need.split("|")) is None)


def check_dataset(path: str | Path, *, name: str | None = None) -> DataSetCheck:
    """What is there, how much per split against the official numbers, what is missing and who publishes it.

    Raises BadSource when nothing is at the path, or a list cannot be read; UnknownName.
    """
    info, root = _found(Path(os.path.expanduser(path)), name)
    absent = _absent(Tree(root), info) if root.is_dir() else ()
    data = None
    problems: list[str] = []
    if not absent:
        try:
            data = _read(info, root)
        except BadSource as error:
            problems.append(str(error))
    splits = _counted(data, info) if data else ()
    if data:
        problems += [*data.problems, *_other(splits)]
    missing = data.missing if data else ()
    return DataSetCheck(
        info.name,
        str(root),
        data.protocol if data else info.protocol,
        splits,
        absent,
        len(missing),
        missing[:_NAMED],
        tuple(problems),
        info.owner,
        info.obtain,
        data.without_caption if data else 0,
    )


def _counted(data: DataSet, info: DataSetInfo) -> tuple[SplitCheck, ...]:
    rows = []
    for part, split in data.splits.items():
        images, classes = info.official.get(part, (None, None))
        captions = len(split.captions) if split.captions is not None else 0
        rows.append(SplitCheck(part, len(split), split.classes, captions, images, classes))
    return tuple(rows)


def _other(splits: tuple[SplitCheck, ...]) -> Iterator[str]:
    """What is not in the official numbers."""
    for one in splits:
        for what, found, official in (
            ("pictures", one.images, one.official_images),
            ("classes", one.classes, one.official_classes),
        ):
            if official is not None and found != official:
                yield f"{one.name} has {found:,} {what}, officially {official:,}"
        if not one.images and one.name != "train":
            yield f"{one.name} has no pictures"
