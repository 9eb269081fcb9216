"""Pictures with captions: Flickr30k and COCO in Karpathy's splits, texts beside their pictures, any table."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embedkit.errors import BadSource
from embedkit.training.datasets.build import Builder, Row, captioned
from embedkit.training.datasets.contract import DataSet, Split, Subset
from embedkit.training.datasets.tree import Tree

__all__ = ["read_captions", "read_coco", "read_flickr30k"]

_PARTS = {"train": "train", "restval": "train", "test": "test"}  # of Karpathy's; `val` is left out
_SPLITS = {"train": "train", "training": "train", "test": "test", "val": "val", "valid": "val", "validation": "val"}
_FOLDS = 5
_JUDGED = 5  # without a split, every so many-th label is judged
Texts = tuple[str, ...]


def read_flickr30k(tree: Tree) -> DataSet:
    """``dataset_flickr30k.json`` with the pictures in ``flickr30k-images``; five captions each, 1,000 are judged."""
    homes = ("flickr30k-images", "flickr30k_images", "images", "")
    return _karpathy(tree, "flickr30k", "dataset_flickr30k.json", homes, folds=False)


def read_coco(tree: Tree) -> DataSet:
    """``dataset_coco.json`` with the pictures in ``train2014`` and ``val2014``; ``restval`` joins the training.

    5,000 pictures are judged together, and as five folds of 1,000 in the order of the list.
    """
    return _karpathy(tree, "coco", "dataset_coco.json", ("", "images"), folds=True)


def _karpathy(tree: Tree, name: str, file: str, homes: Sequence[str], *, folds: bool) -> DataSet:
    where = tree.file(file, f"annotations/{file}", f"karpathy/{file}")
    parts: dict[str, list[tuple[str, Texts]]] = {"train": [], "test": []}
    try:
        for image in tree.json(file, f"annotations/{file}", f"karpathy/{file}")["images"]:
            part = _PARTS.get(image["split"])
            if part is not None:
                texts = _texts(sentence["raw"] for sentence in image["sentences"])
                parts[part].append((f"{image.get('filepath', '')}/{image['filename']}".lstrip("/"), texts))
    except (KeyError, TypeError, AttributeError) as error:
        raise BadSource(f"{where}: it is not a list of pictures as Karpathy publishes it: {error!r}") from error
    builder = Builder(tree, under=homes)
    train, test = (_Part.of(builder, parts[part]) for part in ("train", "test"))
    subsets = _folds(test.places, len(parts["test"])) if folds else ()
    bare = train.without + test.without
    return DataSet(
        name,
        "image-text",
        train.split,
        test.split,
        subsets=subsets,
        missing=tuple(builder.missing),
        without_caption=bare,
    )


def _folds(places: Sequence[int], count: int) -> tuple[Subset, ...]:
    """Five parts of the published list; `places`: where in it each picture stands that is there."""
    fold = np.array(places, np.int64) * _FOLDS // max(count, 1)
    return tuple(Subset(f"fold {number + 1}", np.flatnonzero(fold == number)) for number in range(_FOLDS))


def _texts(found: Iterator[Any]) -> Texts:
    """Captions without those that are empty, each once."""
    given = (str(one) for one in found if one is not None)
    return tuple(dict.fromkeys(text for one in given if (text := " ".join(one.split()))))


@dataclass(frozen=True, slots=True)
class _Part:
    """A split in which every picture has a label of its own, called by its first caption.

    `places`: of its pictures in what was given; `without`: how many of these have no caption.
    """

    split: Split
    places: Sequence[int]
    without: int

    @classmethod
    def of(cls, builder: Builder, pictures: Sequence[tuple[str, Texts]], *, together: bool = False) -> _Part:
        """`together`: pictures with the same captions share a label. Those without one are left out and counted."""
        places = [place for place, (_, texts) in enumerate(pictures) if texts]
        split = builder.split([Row(pictures[place][0], place) for place in places])
        found: list[int] = split.labels.tolist()
        known: dict[Texts | int, int] = {}
        for place in found:
            known.setdefault(pictures[place][1] if together else place, len(known))
        labels = [known[pictures[place][1] if together else place] for place in found]
        texts = {label: pictures[place][1] for label, place in zip(labels, found, strict=True)}
        names = tuple(texts[label][0] for label in range(len(texts)))
        split = Split(split.paths, np.array(labels, np.int64), names=names)
        return cls(captioned(split, texts), found, len(pictures) - len(places))


def read_captions(place: Tree | Path) -> DataSet:
    """A folder in which ``x.txt`` lies beside ``x.jpg``, a caption a line; or a table (CSV, TSV, JSON Lines) of
    ``path``, ``caption`` and, if there is one, ``split``.

    A picture with several captions has several rows, or in JSON Lines a list. Pictures with the very same captions, as
    photos of one product have, share a label. Folders ``train`` and ``test`` are the split; where nothing says it,
    every fifth label is judged.
    """
    if isinstance(place, Tree):
        parts, builder = _beside(place), Builder(place)
    else:
        parts, builder = _listed(place), Builder(Tree(place.parent), anywhere=True)
    train, test = (_Part.of(builder, parts.get(part, []), together=True) for part in ("train", "test"))
    return DataSet(
        "captions",
        "image-text",
        train.split,
        test.split,
        missing=tuple(builder.missing),
        without_caption=train.without + test.without,
    )


def _beside(tree: Tree) -> dict[str, list[tuple[str, Texts]]]:
    there = {name.lower(): name for name in tree.folders()}
    if "train" in there and ("test" in there or "val" in there):
        judged = there.get("test") or there["val"]
        return {"train": _with_texts(tree, there["train"]), "test": _with_texts(tree, judged)}
    return _dealt(_with_texts(tree, ""))


def _with_texts(tree: Tree, folder: str) -> list[tuple[str, Texts]]:
    pictures = []
    for path in tree.pictures(folder, deep=True):
        beside = f"{path.rpartition('.')[0]}.txt"
        lines = tree.lines(beside) if tree.find(beside) else ()
        pictures.append((path, _texts(text for _, text in lines)))
    return pictures


def _dealt(pictures: list[tuple[str, Texts]]) -> dict[str, list[tuple[str, Texts]]]:
    known: dict[Texts, int] = {}
    parts: dict[str, list[tuple[str, Texts]]] = {"train": [], "test": []}
    for one in pictures:
        if one[1]:
            known.setdefault(one[1], len(known))
        judged = known.get(one[1], 0) % _JUDGED == _JUDGED - 1
        parts["test" if judged else "train"].append(one)
    return parts


def _listed(path: Path) -> dict[str, list[tuple[str, Texts]]]:
    """Pictures by split, in the order of the table. Raises BadSource."""
    found: dict[str, dict[str, list[Any]]] = {}
    for where, row in _rows(path):
        picture = str(row.get("path") or row.get("image") or "").strip()
        if not picture:
            raise BadSource(f"{where}: path is empty")
        part = str(row.get("split") or "").strip().lower()
        if part and part not in _SPLITS:
            raise BadSource(f"{where}: the split {part!r} is none of {', '.join(_SPLITS)}")
        texts = row.get("caption")
        several = texts if isinstance(texts, list) else [texts]
        found.setdefault(_SPLITS.get(part, ""), {}).setdefault(picture, []).extend(several)
    if "" in found and len(found) > 1:
        raise BadSource(f"{path}: some rows have a split and others none; fill the column, or leave it out")
    parts = {part: [(picture, _texts(iter(texts))) for picture, texts in rows.items()] for part, rows in found.items()}
    if "" in parts:
        return _dealt(parts[""])
    held_out = parts.pop("val", [])
    parts.setdefault("test", held_out)
    return parts


def _rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            if path.suffix.lower() in (".jsonl", ".ndjson"):
                for number, line in enumerate(file, 1):
                    if line.strip():
                        yield f"{path} line {number}", _object(line, f"{path} line {number}")
                return
            reader = csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
            reader.fieldnames = [name.strip().lower() for name in reader.fieldnames or ()]
            if not {"path", "caption"} <= {"path" if name == "image" else name for name in reader.fieldnames}:
                raise BadSource(
                    f"{path}: a table of captions needs the columns path and caption, "
                    f"not {', '.join(reader.fieldnames) or 'none'}"
                )
            for row in reader:
                yield f"{path} line {reader.line_num}", row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadSource(f"{path}: the table cannot be read: {error}") from error


def _object(line: str, where: str) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise BadSource(f"{where}: it is no JSON: {error}") from error
    if not isinstance(row, dict):
        raise BadSource(f"{where}: it is no object with path and caption")
    return row
