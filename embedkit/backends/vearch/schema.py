"""How a CollectionSpec is laid out as a space of Vearch, and read back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from embedkit.backends.contract import CollectionSpec, IndexSpec, SearchParams
from embedkit.backends.indexes import Part, lists_of, pieces_of
from embedkit.backends.vearch.filters import TOKENS
from embedkit.backends.vearch.layout import LAYOUTS, Layout, layout_of
from embedkit.errors import DataCorrupt
from embedkit.types import Metric

__all__ = ["ALL", "COLUMNS", "ID", "enough_of", "has_index", "index_params", "knobs", "schema_of", "spec_of"]

ID, COLUMNS = "id", "columns"
ALL = 65_536  # times as far as any search: through all lists
_FARTHEST = 32_768  # rows that a walk through a graph may keep in view
_LISTS = 128  # of an inverted file whose rows are yet to come
_POINTS = 39  # rows that a list wants to be trained on
_CODES = 256  # of a piece of a vector, where pieces are quantised: fewer rows cannot be trained on
_DEAD = 0.1  # of the rows ever written, for which a space is not made anew
_MARK = "embedkit_"  # before the metric, in the name of the vector's index
_NATIVE: Mapping[str, Mapping[str, tuple[str, int, int, int]]] = {  # ours: Vearch's name, default, least, most
    "hnsw": {"m": ("nlinks", 32, 8, 96), "ef_construction": ("efConstruction", 200, 16, 1_024)},
    "ivf": {"nlist": ("ncentroids", _LISTS, 1, 65_536)},
    "pq": {"m": ("nsubvector", 0, 1, 32_768)},
}


def index_params(spec: CollectionSpec, rows: int = 0) -> dict[str, Any]:
    """The parameters of the index in Vearch's names. `rows` there are to train on, 0 if they are yet to come.

    Raises ConfigError for a bad parameter.
    """
    params: dict[str, Any] = {"metric_type": layout_of(spec).metrics[spec.metric]}
    for part in spec.index.parts:
        known = _NATIVE.get(part.name, {})
        part.only(*known)
        for name, (native, default, low, high) in known.items():
            if part.name == "pq":
                params[native] = pieces_of(part, spec.dim, spec.dim // 4)
            elif name == "nlist":
                params[native] = lists_of(part, rows, unknown=default, most=high)
            else:
                params[native] = part.number(name, default, low, high)
    if spec.index.family == "ivf":
        lists = params["ncentroids"]
        least = max(lists, _CODES if "nsubvector" in params else lists)
        params["training_threshold"] = max(least, min(_POINTS * lists, rows or _POINTS * lists))
    return params


def knobs(spec: CollectionSpec, params: SearchParams | None, k: int, *, times: int = 1) -> dict[str, Any]:
    """The parameters of a search in Vearch's words. `times`: as far as without a filter; `ALL`: through all lists."""
    given, index = params or SearchParams(), spec.index
    found: dict[str, Any] = {"metric_type": layout_of(spec).metrics[spec.metric]}
    lists = lists_of(index.main, 0, unknown=_LISTS) if index.family == "ivf" else 0
    if index.family == "hnsw":
        found["efSearch"] = min(times * max(given.ef or 64, k), _FARTHEST)
    if index.family == "ivf":
        found["nprobe"] = min(times * (given.nprobe or 32), lists)
    if index.codes is not None:
        found["recall_num"] = max(100, (given.k_factor or 4) * k)  # so many are compared by their vectors
    return found


def schema_of(spec: CollectionSpec, space: str, *, partitions: int, replicas: int, rows: int = 0) -> Any:
    """What the official client makes a space of. `rows`: that one partition will be trained on."""
    from vearch.schema.field import Field
    from vearch.schema.index import Index, ScalarIndex
    from vearch.schema.space import SpaceSchema
    from vearch.utils import DataType

    layout = layout_of(spec)
    index = Index(f"{_MARK}{spec.metric}", layout.indexes[spec.index.shape], index_params(spec, rows))
    fields = [
        Field(ID, DataType.LONG, index=ScalarIndex(ID)),
        Field(TOKENS, DataType.STRING_ARRAY, index=ScalarIndex(TOKENS)),
        Field(COLUMNS, DataType.STRING),
        Field(layout.field, DataType.VECTOR, index=index, dimension=spec.dim),
    ]
    return SpaceSchema(space, fields, partition_num=partitions, replica_num=replicas)


def spec_of(info: dict[str, Any], name: str) -> CollectionSpec:
    """The spec, under the collection's name. Raises DataCorrupt when embedkit has not made the space."""
    fields = {field["name"]: field for field in info["schema"]["fields"]}
    layout = next((one for one in LAYOUTS if fields.get(one.field, {}).get("type") == "vector"), None)
    index = fields[layout.field].get("index") or {} if layout else {}
    if layout is None or not {ID, TOKENS, COLUMNS} <= fields.keys() or not index.get("name", "").startswith(_MARK):
        raise DataCorrupt(
            f"The Vearch space {info['space_name']!r} was not made by embedkit (it has the fields "
            f"{', '.join(fields)}); choose another collection name"
        )
    metric: Metric = index["name"].removeprefix(_MARK)
    return CollectionSpec(name, int(fields[layout.field]["dimension"]), metric, layout.kind, _index_of(layout, index))


def has_index(info: dict[str, Any], spec: CollectionSpec, rows: int) -> bool:
    """Whether a space has the very index that `schema_of` would give it, and hardly any rows that are dead.

    Only a new space is rid of rows that were replaced or deleted, through which a search goes all the same.
    """
    layout = layout_of(spec)
    index = next((field.get("index") or {} for field in info["schema"]["fields"] if field["name"] == layout.field), {})
    if index.get("type") != layout.indexes[spec.index.shape]:
        return False
    wanted, stored = index_params(spec, rows), index.get("params") or {}
    written = sum(part["max_docid"] + 1 for part in info["partitions"])
    return wanted.items() <= stored.items() and written * (1 - _DEAD) <= int(info["doc_num"])


def enough_of(info: dict[str, Any]) -> int:
    """The rows of a partition from which on its index is trained; 0 for an index that learns nothing."""
    every = [field.get("index") or {} for field in info["schema"]["fields"] if field["type"] == "vector"]
    return max(int((index.get("params") or {}).get("training_threshold") or 0) for index in every)


def _index_of(layout: Layout, index: dict[str, Any]) -> IndexSpec:
    made = IndexSpec.parse({native: ours for ours, native in layout.indexes.items()}[index["type"]])
    stored = index.get("params") or {}
    codes = Part(made.codes.name, _told(made.codes.name, stored)) if made.codes else None
    return replace(made, params=_told(made.family, stored), codes=codes)


def _told(part: str, stored: dict[str, Any]) -> dict[str, int]:
    """The parameters of a part that are not the defaults."""
    known = {ours: (native, default) for ours, (native, default, _, _) in _NATIVE.get(part, {}).items()}
    found = {ours: int(stored[native]) for ours, (native, _) in known.items() if native in stored}
    return {ours: value for ours, value in found.items() if value != known[ours][1]}
