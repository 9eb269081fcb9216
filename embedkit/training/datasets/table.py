"""Any table of pictures: a CSV with the columns path, label and, if there are any, split and domain."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from embedkit.errors import BadSource
from embedkit.training.datasets.build import Builder, Row, halves, numbering
from embedkit.training.datasets.contract import PICTURE, SKETCH, DataSet
from embedkit.training.datasets.tree import Tree

__all__ = ["read_table"]

_SPLITS = {"train": "train", "training": "train", "test": "test", "val": "val", "valid": "val", "validation": "val",
           "query": "query", "gallery": "gallery"}  # fmt: skip
_DOMAINS = {"sketch": SKETCH, "picture": PICTURE}


def read_table(path: Path) -> DataSet:
    """``path,label[,split][,domain]``; paths relative to the table, or absolute.

    Splits: train, test, or query and gallery. Rows of a split ``val`` are left out where another is judged, and stand
    for ``test`` where none is. Without a split, the first half of the classes, sorted by name, trains, and the other
    half is judged. The domain is sketch or picture; with one, the sketches of the test ask and its pictures are the
    gallery.
    """
    parts = _parts(path)
    builder = Builder(Tree(path.parent), anywhere=True)
    given = [row for rows in parts.values() for row in rows]
    if "" in parts:
        if len(parts) > 1:
            raise BadSource(f"{path}: some rows have a split and others none; fill the column, or leave it out")
        parts["train"], parts["test"] = halves(given)
    held_out = parts.pop("val", [])
    if held_out and not (parts.get("test") or parts.get("query") or parts.get("gallery")):
        parts["test"] = held_out
    if bool(parts.get("query")) != bool(parts.get("gallery")) or (parts.get("test") and parts.get("query")):
        raise BadSource(f"{path}: besides train, give test, or query and gallery, as the split")
    if any(row.domain is not None for row in parts.get("test", [])):
        rows = parts.pop("test")
        for part, domain in (("query", SKETCH), ("gallery", PICTURE)):
            parts[part] = [row for row in rows if row.domain == domain]
    train = builder.train(parts.get("train", []))
    if not parts.get("query"):
        query = builder.train(parts.get("test", []))
        return DataSet("csv", "zero-shot", train, query, missing=tuple(builder.missing))
    known = numbering(parts["query"], parts["gallery"])
    names = tuple(map(str, known))
    query, gallery = (builder.split(parts[part], known, names=names) for part in ("query", "gallery"))
    return DataSet("csv", "query-gallery", train, query, gallery, missing=tuple(builder.missing))


def _parts(path: Path) -> dict[str, list[Row]]:
    """The rows by split; '' where none is given. Raises BadSource."""
    parts: dict[str, list[Row]] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
            reader.fieldnames = [name.strip().lower() for name in reader.fieldnames or ()]
            if not {"path", "label"} <= set(reader.fieldnames):
                raise BadSource(
                    f"{path}: a table of pictures needs the columns path and label, "
                    f"not {', '.join(reader.fieldnames) or 'none'}"
                )
            for row in reader:
                where = f"{path} line {reader.line_num}"
                picture, label = ((row[name] or "").strip() for name in ("path", "label"))
                if not (picture and label):
                    raise BadSource(f"{where}: path or label is empty")
                split = (row.get("split") or "").strip().lower()
                if split and split not in _SPLITS:
                    raise BadSource(f"{where}: the split {split!r} is none of {', '.join(_SPLITS)}")
                parts.setdefault(_SPLITS.get(split, ""), []).append(Row(picture, label, domain=_domain(row, where)))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadSource(f"{path}: the table cannot be read: {error}") from error
    return parts


def _domain(row: Mapping[str, str | None], where: str) -> int | None:
    """None where the table has no such column. Raises BadSource."""
    if "domain" not in row:
        return None
    text = (row["domain"] or "").strip().lower()
    if text not in _DOMAINS:
        raise BadSource(f"{where}: the domain {text!r} is none of {', '.join(_DOMAINS)}")
    return _DOMAINS[text]
