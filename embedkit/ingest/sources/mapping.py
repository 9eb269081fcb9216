"""Which column of a table is the key, the picture, the title, an attribute."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from embedkit.errors import BadSource, ConfigError
from embedkit.types import Record

__all__ = ["ColumnMapping", "Columns", "unlike"]

_DEFAULTS = {
    "key": ("key", "id", "sku", "product_id", "item_id", "code"),
    "image": ("image", "image_url", "image_path", "img", "picture", "photo", "path", "file", "filename", "url", "uri"),
    "title": ("title", "name", "product_name", "caption", "description"),
}
_FIELDS = ("key", "image", "title", "attributes")


@dataclass(frozen=True, slots=True)
class ColumnMapping:
    """Column names as the user gave them; None where the usual names are tried.

    `attributes`: the columns to keep; None keeps every other one.
    """

    key: str | None = None
    image: str | None = None
    title: str | None = None
    attributes: tuple[str, ...] | None = None

    @classmethod
    def from_dict(cls, values: Mapping[str, str]) -> ColumnMapping:
        """Raises ConfigError for an unknown field.

        >>> ColumnMapping.from_dict({"image": "photo", "attributes": "price, brand"}).attributes
        ('price', 'brand')
        """
        for field, column in values.items():
            if field not in _FIELDS:
                near = difflib.get_close_matches(field, _FIELDS, n=1)
                hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(_FIELDS)}"
                raise ConfigError(f"There is no field {field!r} to map a column to; {hint}")
            if not column:
                raise ConfigError(f"The mapping of {field!r} names no column; write for example --map {field}=COLUMN")
        wanted = values.get("attributes")
        attributes = tuple(part.strip() for part in wanted.split(",") if part.strip()) if wanted else None
        return cls(values.get("key"), values.get("image"), values.get("title"), attributes)

    def check(self, table: str, columns: Collection[str]) -> None:
        """Raise BadSource for a column that the user has named and the table lacks."""
        given = [("key", self.key), ("image", self.image), ("title", self.title)]
        for field, column in [*given, *(("attributes", name) for name in self.attributes or ())]:
            if column is not None and column not in columns:
                raise BadSource(_missing(table, field, column, columns))

    def resolve(self, table: str, columns: Collection[str], *, strict: bool = True) -> Columns:
        """Find the columns in a table. Raises BadSource naming what is missing and how to map it.

        `strict` false: rows may differ (JSON Lines), so a column that is not there is not yet an error.
        """
        if strict:
            self.check(table, columns)
        lower = {column.lower(): column for column in columns}
        found: dict[str, str | None] = {}
        for field, usual in _DEFAULTS.items():
            taken = set(found.values())
            found[field] = getattr(self, field) or next(
                (lower[n] for n in usual if n in lower and lower[n] not in taken), None
            )
        if strict and not (found["image"] or found["title"]):
            raise BadSource(
                f"{table} has no column of pictures and none of titles (it has {', '.join(columns)}); "
                "name one: --map image=COLUMN"
            )
        if strict and not (found["key"] or found["image"]):
            raise BadSource(
                f"{table} has no column that names each product (it has {', '.join(columns)}); "
                "name one: --map key=COLUMN"
            )
        return Columns(found["key"], found["image"], found["title"], self.attributes)


def unlike(name: str, columns: Sequence[str]) -> Sequence[str]:
    """The columns of a catalog, no two of which have one name: a row would have the value of the last.

    Raises BadSource.
    """
    double = next((column for column in columns if columns.count(column) > 1), None)
    if double is not None:
        raise BadSource(f"The catalog {name!r} has two columns {double!r}; rename one")
    return columns


def _missing(table: str, field: str, column: str, columns: Collection[str]) -> str:
    near = difflib.get_close_matches(column, columns, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"{table} has no column {column!r} (it has {', '.join(columns)}); {hint}map another: --map {field}=COLUMN"


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of one table; `key` None takes the picture's path, `attributes` None takes the rest."""

    key: str | None
    image: str | None
    title: str | None
    attributes: tuple[str, ...] | None

    def record(self, row: Mapping[str, Any], locator: str, placed: Callable[[str], str]) -> Record:
        """A row as a record; `placed` makes an address of a picture's path. Raises ValueError saying what is wrong."""
        image = _text(_address(row, self.image)) if self.image else None
        key = _text(_name(row, self.key)) if self.key else image
        if key is None:
            raise ValueError(f"the column {self.key or self.image!r}, which names the product, is empty")
        title = _text(row.get(self.title)) if self.title else None
        used = {self.key, self.image, self.title}
        if self.attributes is not None:
            attributes = {name: row[name] for name in self.attributes if name in row}
        else:
            attributes = {name: value for name, value in row.items() if name not in used}
        return Record(key, locator, placed(image) if image and "://" not in image else image, title, attributes)


def _address(row: Mapping[str, Any], column: str) -> Any:
    """The cell that says where the picture is. Raises ValueError if it holds several values."""
    value = row.get(column)
    if kind := _several(value):
        raise ValueError(f"the column {column!r} holds {kind} where the path or URL of one picture belongs")
    return value


def _name(row: Mapping[str, Any], column: str) -> Any:
    """The cell that names the product. Raises ValueError if that is neither a text nor a whole number."""
    value = row.get(column)
    fraction = isinstance(value, float) and value == value and not value.is_integer()
    kind = json.dumps(value) if fraction or isinstance(value, bool) else _several(value)
    if kind:
        raise ValueError(
            f"the column {column!r}, which names the product, holds {kind}; a key is a text or a whole number"
        )
    return value


def _several(value: Any) -> str:
    """What a cell holds if it is more than one value."""
    if isinstance(value, Mapping):
        return "an object"
    return "a list" if isinstance(value, list | tuple) else ""


def _text(value: Any) -> str | None:
    """A cell as text, None if it is empty. A number that a reader made a float of loses its ``.0``."""
    if value is None or value != value:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value).strip()
    return text or None
