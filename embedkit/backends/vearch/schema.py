"""How a CollectionSpec is laid out as a space of Vearch, and read back."""

from __future__ import annotations

from typing import Any

from embedkit.backends.contract import CollectionSpec, IndexSpec
from embedkit.backends.vearch.filters import TOKENS
from embedkit.backends.vearch.layout import LAYOUTS, Layout, layout_of
from embedkit.errors import ConfigError, DataCorrupt
from embedkit.types import Metric

__all__ = ["COLUMNS", "ID", "TRAINED", "index_params", "schema_of", "spec_of"]

ID, COLUMNS = "id", "columns"
TRAINED = ("ivf", "ivfpq", "ivfrabitq")  # families that know nothing before they have seen enough rows
_LISTS = 128
_POINTS = 39  # rows that a list wants to be trained on
_CODES = 256  # of a part of a vector, where it is quantised in parts: fewer rows cannot be trained on
_MARK = "embedkit_"  # before the metric, in the name of the vector's index

_PARAMS: dict[str, dict[str, tuple[str, int, int, int]]] = {
    "flat": {},
    "hnsw": {"m": ("nlinks", 32, 8, 96), "ef_construction": ("efConstruction", 200, 16, 1_024)},
    "ivf": {"nlist": ("ncentroids", _LISTS, 1, 65_536)},
    "ivfpq": {"nlist": ("ncentroids", _LISTS, 1, 65_536), "m": ("nsubvector", 16, 1, 4_096)},
    "ivfrabitq": {"nlist": ("ncentroids", _LISTS, 1, 65_536)},
}


def index_params(spec: CollectionSpec, rows: int = 0) -> dict[str, Any]:
    """The parameters of the index in Vearch's names. `rows` there are to train on, 0: not known.

    Raises ConfigError for a bad parameter.
    """
    known = _PARAMS[spec.index.family]
    params: dict[str, Any] = {native: default for native, default, _, _ in known.values()}
    for name, value in spec.index.params.items():
        if name not in known:
            raise ConfigError(
                f"The index {spec.index.family!r} has no parameter {name!r}; known: {', '.join(known) or 'none'}"
            )
        native, _, low, high = known[name]
        if not isinstance(value, int) or not low <= value <= high:
            raise ConfigError(f"{name}={value} of the index {spec.index} is not a whole number of {low} to {high}")
        params[native] = value
    if spec.dim % params.get("nsubvector", 1):
        raise ConfigError(f"m={params['nsubvector']} of the index {spec.index} does not divide {spec.dim} dimensions")
    if spec.index.family in TRAINED:
        lists = params["ncentroids"]
        least = max(lists, _CODES if "nsubvector" in params else lists)
        params["training_threshold"] = max(least, min(_POINTS * lists, rows or _POINTS * lists))
    return {"metric_type": layout_of(spec).metrics[spec.metric], **params}


def schema_of(spec: CollectionSpec, space: str, *, partitions: int, replicas: int, rows: int = 0) -> Any:
    """What the official client makes a space of. `rows`: that one partition will be trained on."""
    from vearch.schema.field import Field
    from vearch.schema.index import Index, ScalarIndex
    from vearch.schema.space import SpaceSchema
    from vearch.utils import DataType

    layout = layout_of(spec)
    params = index_params(spec, rows)
    index = Index(f"{_MARK}{spec.metric}", layout.indexes[spec.index.family], params)
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


def _index_of(layout: Layout, index: dict[str, Any]) -> IndexSpec:
    family = {native: ours for ours, native in layout.indexes.items()}[index["type"]]
    stored = index.get("params") or {}
    found = {
        ours: (int(stored[native]), default)
        for ours, (native, default, _, _) in _PARAMS[family].items()
        if native in stored
    }
    return IndexSpec(family, {ours: value for ours, (value, default) in found.items() if value != default})
