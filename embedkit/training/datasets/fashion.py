"""DeepFashion (in-shop and consumer-to-shop) and Street2Shop."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from embedkit.errors import BadSource
from embedkit.training.datasets.build import Builder, Row, columns, number, numbering
from embedkit.training.datasets.contract import DataSet
from embedkit.training.datasets.tree import PICTURES, Tree

__all__ = ["PARTITION", "read_consumer2shop", "read_inshop", "read_street2shop"]

PARTITION = ("list_eval_partition.txt", "Eval/list_eval_partition.txt", "Anno/list_eval_partition.txt")
_UNDER = ("", "Img", "img")
_TWO_PATHS = re.compile(r"(\S.*?\.\w{3,4})\s+(\S.*)")
_META = ("meta/json", "meta/meta/json", "json", "")
_PHOTOS = ("photos", "images", "")


def read_inshop(tree: Tree) -> DataSet:
    """DeepFashion In-shop: queries search a gallery of other pictures of the same items."""
    parts: dict[str, list[Row]] = {"train": [], "query": [], "gallery": []}
    lines, problems = _partition(tree)
    for where, line in lines:
        path, item, status = columns(where, line, "image_name item_id evaluation_status", path_first=True)
        _part(parts, where, status).append(Row(path, item))
    builder = Builder(tree, under=_UNDER)
    known = numbering(parts["query"], parts["gallery"])
    return DataSet(
        "inshop",
        "query-gallery",
        builder.train(parts["train"]),
        builder.split(parts["query"], known, names=tuple(map(str, known))),
        builder.split(parts["gallery"], known, names=tuple(map(str, known))),
        missing=tuple(builder.missing),
        problems=problems,
    )


def _partition(tree: Tree) -> tuple[list[tuple[str, str]], tuple[str, ...]]:
    """The lines below the count and the names of the columns; what is wrong with the count."""
    lines = list(tree.lines(*PARTITION))
    said = int(lines.pop(0)[1]) if lines and lines[0][1].strip().isdecimal() else None
    if lines and "evaluation_status" in lines[0][1]:
        lines.pop(0)
    if said is None or said == len(lines):
        return lines, ()
    return lines, (f"list_eval_partition.txt says {said:,} rows and has {len(lines):,}",)


def _part(parts: dict[str, list[Row]], where: str, status: str) -> list[Row]:
    if status not in parts:
        raise BadSource(f"{where}: the status {status!r} is none of {', '.join(parts)}")
    return parts[status]


def read_consumer2shop(tree: Tree) -> DataSet:
    """DeepFashion Consumer-to-shop: a consumer's picture searches the shops' pictures; figures by category.

    Rows are pairs; a picture of several pairs counts once. The category is the two folders over the item's own.
    The ``val`` part is left out.
    """
    lines, problems = _partition(tree)
    consumers: dict[str, dict[str, Row]] = {"train": {}, "val": {}, "test": {}}
    shops: dict[str, dict[str, Row]] = {"train": {}, "val": {}, "test": {}}
    categories: dict[str, int] = {}
    for where, line in lines:
        both, item, status = columns(where, line, "pair item_id evaluation_status", path_first=True)
        pair = _TWO_PATHS.fullmatch(both)
        if pair is None or status not in shops:
            raise BadSource(f"{where}: {line.strip()!r} is not 'image_1 image_2 item_id train|val|test'")
        for path, part in zip(pair.groups(), (consumers[status], shops[status]), strict=True):
            category = categories.setdefault("/".join(PurePosixPath(path).parts[1:-2]), len(categories))
            part.setdefault(path, Row(path, item, category=category))
    builder = Builder(tree, under=_UNDER)
    known = numbering(consumers["test"].values(), shops["test"].values())
    return DataSet(
        "consumer2shop",
        "consumer-to-shop",
        builder.train({**consumers["train"], **shops["train"]}.values()),
        builder.split(consumers["test"].values(), known),
        builder.split(shops["test"].values(), known),
        categories=tuple(categories),
        missing=tuple(builder.missing),
        problems=problems,
    )


def read_street2shop(tree: Tree) -> DataSet:
    """Street2Shop: a street photo, cut to its box, searches the shop photos of its own category."""
    meta = next((f"{folder}/" if folder else "" for folder in _META if _categories(tree, folder)), "")
    categories = _categories(tree, meta)
    if not categories:
        raise BadSource(f"{str(tree.root)!r} has no meta/json/retrieval_CATEGORY.json; see: embedkit datasets check")
    photos = _photos(tree)
    train: list[Row] = []
    query: list[Row] = []
    gallery: list[Row] = []
    for place, category in enumerate(categories):
        shop = list(_entries(tree, f"{meta}retrieval_{category}.json", place, photos))
        trained = list(_entries(tree, f"{meta}train_pairs_{category}.json", place, photos))
        gallery += shop
        query += _entries(tree, f"{meta}test_pairs_{category}.json", place, photos)
        products = {row.label for row in trained}
        train += trained + [row for row in shop if row.label in products]
    builder = Builder(tree)
    known = numbering(query, gallery)
    return DataSet(
        "street2shop",
        "street-to-shop",
        builder.train(train),
        builder.split(query, known),
        builder.split(gallery, known),
        categories=tuple(categories),
        missing=tuple(builder.missing),
    )


def _categories(tree: Tree, folder: str) -> list[str]:
    """The categories that the lists of a folder are of."""
    names = [name for name in tree.entries(folder) if re.fullmatch(r"retrieval_\w+\.json", name, re.IGNORECASE)]
    return [name[len("retrieval_") : -len(".json")] for name in names]


def _photos(tree: Tree) -> dict[int, str]:
    """The photos that are there, by number; people name them with and without leading zeros."""
    found: dict[int, str] = {}
    for folder in _PHOTOS:
        for name in tree.entries(folder):
            stem, ending = os.path.splitext(name)
            if stem.isdecimal() and ending.lower() in PICTURES:
                found.setdefault(int(stem), f"{folder}/{name}" if folder else name)
    return found


def _entries(tree: Tree, name: str, category: int, photos: dict[int, str]) -> Iterator[Row]:
    """The rows of a list; a photo may be of several products, and is then there for each."""
    path, values = tree.file(name), tree.json(name)
    try:
        for one in values:
            box = one.get("bbox")
            cut = tuple(int(box[side]) for side in ("left", "top", "width", "height")) if box else None
            photo = number(path, str(one["photo"]))
            yield Row(
                photos.get(photo, f"photos/{photo:09}"),
                number(path, str(one["product"])),
                category=category,
                box=(cut[0], cut[1], cut[2], cut[3]) if cut else None,
            )
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise BadSource(f"{path}: an entry is not {{photo, product, bbox}}: {error!r}") from error
