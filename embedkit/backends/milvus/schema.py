"""How a CollectionSpec is laid out in Milvus, and read back."""

from __future__ import annotations

from typing import Any

from embedkit.backends.contract import CollectionSpec, IndexSpec
from embedkit.backends.milvus.layout import LAYOUTS, Layout
from embedkit.errors import ConfigError, DataCorrupt

__all__ = ["create_collection", "index_arguments", "spec_of"]

_PARAMS = {
    "flat": {},
    "hnsw": {"m": ("M", 16, 4, 64), "ef_construction": ("efConstruction", 200, 8, 512)},
    "ivf": {"nlist": ("nlist", 1_024, 1, 65_536)},
}


def index_arguments(spec: IndexSpec, metric: str, layout: Layout) -> dict[str, Any]:
    """What pymilvus wants to hear. Raises ConfigError for a bad parameter."""
    known = _PARAMS[spec.family]
    params: dict[str, int] = {native: default for native, default, _, _ in known.values()}
    for name, value in spec.params.items():
        if name not in known:
            raise ConfigError(
                f"The index {spec.family!r} has no parameter {name!r}; known: {', '.join(known) or 'none'}"
            )
        native, _, low, high = known[name]
        if not isinstance(value, int) or not low <= value <= high:
            raise ConfigError(f"{name}={value} of the index {spec.family!r} is not a whole number of {low} to {high}")
        params[native] = value
    index = {"index_type": layout.indexes[spec.family], "metric_type": layout.metrics[metric], "params": params}
    return {"field_name": layout.field, **index}


def create_collection(client: Any, spec: CollectionSpec, layout: Layout, index: dict[str, Any], timeout: float) -> None:
    """Make the collection with its index, loaded."""
    from pymilvus import DataType

    schema = client.create_schema(auto_id=False, enable_dynamic_field=True)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field(layout.field, DataType[layout.type], dim=spec.dim)
    schema.add_field("columns", DataType.JSON)
    params = client.prepare_index_params()
    params.add_index(**index)
    client.create_collection(
        spec.name, schema=schema, index_params=params, consistency_level="Session", timeout=timeout
    )


def spec_of(client: Any, name: str, timeout: float) -> CollectionSpec:
    """The spec, under the real name of an alias. Raises DataCorrupt when embedkit has not made the collection.

    Milvus Lite does not tell the parameters of an index; then they are left out.
    """
    described = client.describe_collection(name, timeout=timeout)
    fields = {field["name"]: field for field in described["fields"]}
    layout = _layout_of(fields)
    if layout is None or not ({"id", "columns"} <= fields.keys() and described.get("enable_dynamic_field")):
        raise DataCorrupt(
            f"The Milvus collection {name!r} was not made by embedkit (it has the fields {', '.join(fields)}); "
            "choose another collection name"
        )
    index = client.describe_index(name, layout.field, timeout=timeout) or {}
    metrics = {native: ours for ours, native in layout.metrics.items()}
    families = {native: ours for ours, native in layout.indexes.items()}
    return CollectionSpec(
        described["collection_name"],
        int(fields[layout.field]["params"]["dim"]),
        metrics[str(index.get("metric_type", next(iter(metrics)))).upper()],  # type: ignore[arg-type]
        layout.kind,
        _index_of(families.get(str(index.get("index_type", "FLAT")), "flat"), index),
    )


def _layout_of(fields: dict[str, Any]) -> Layout | None:
    for layout in LAYOUTS:
        if layout.field in fields and fields[layout.field]["type"].name == layout.type:
            return layout
    return None


def _index_of(family: str, index: dict[str, Any]) -> IndexSpec:
    defaults = {ours: (native, default) for ours, (native, default, _, _) in _PARAMS[family].items()}
    stored = {**index, **(index.get("params") or {})}
    found = {ours: int(stored[native]) for ours, (native, _) in defaults.items() if native in stored}
    return IndexSpec(family, {ours: value for ours, value in found.items() if value != defaults[ours][1]})
