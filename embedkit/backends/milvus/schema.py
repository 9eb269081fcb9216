"""How a CollectionSpec is laid out in Milvus, and read back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from embedkit.backends.contract import CollectionSpec, IndexSpec, SearchParams
from embedkit.backends.indexes import Part, ef_under_filter, lists_of, nprobe_under_filter, pieces_of
from embedkit.backends.milvus.layout import LAYOUTS, Layout
from embedkit.errors import DataCorrupt, UnsupportedByBackend

__all__ = ["create_collection", "index_arguments", "knobs", "spec_of"]

_LISTS = 1_024  # of an inverted file whose rows are yet to come
_FARTHEST = 32_768  # rows that a walk through a graph may keep in view
_NATIVE: Mapping[str, Mapping[str, tuple[str, int, int, int]]] = {  # ours: Milvus's name, default, least, most
    "hnsw": {"m": ("M", 16, 4, 64), "ef_construction": ("efConstruction", 200, 8, 512)},
    "cagra": {"m": ("graph_degree", 64, 8, 256), "ef_construction": ("intermediate_graph_degree", 128, 8, 512)},
    "ivf": {"nlist": ("nlist", _LISTS, 1, 65_536)},
    "pq": {"m": ("m", 0, 1, 32_768), "bits": ("nbits", 8, 4, 16)},
}
_KEEPS_VECTORS = ("ivf + pq4fs", "ivf + rabitq", "hnsw + sq8", "hnsw + pq")
_REFINES = {"flat": "FP32", "fp16": "FP16"}  # ours: how Milvus calls what it keeps to refine by


def index_arguments(spec: CollectionSpec, layout: Layout, rows: int, *, lite: bool = False) -> dict[str, Any]:
    """What pymilvus wants to hear of the index of a collection with so many rows, 0 if they are yet to come.

    The driver spreads `params` out among the others, where Lite does not look: it gets them together once more.
    Raises ConfigError for a bad parameter, UnsupportedByBackend where Milvus keeps no vectors to refine by.
    """
    index = spec.index
    params: dict[str, int | str] = {}
    for part in index.parts:
        known = _NATIVE.get(part.name, {})
        part.only(*known)
        for name, (native, default, low, high) in known.items():
            if part.name == "pq" and name == "m":
                params[native] = pieces_of(part, spec.dim, spec.dim // 4)
            elif name == "nlist":
                params[native] = lists_of(part, rows, unknown=default, most=high)
            else:
                params[native] = part.number(name, default, low, high)
    if index.refine and index.shape not in _KEEPS_VECTORS:
        raise UnsupportedByBackend(
            "milvus",
            f"refine {index.shape!r}, beside which it keeps no vectors (it does by {', '.join(_KEEPS_VECTORS)})",
        )
    if index.shape == "ivf + pq4fs" and index.refine not in ("", "flat"):
        raise UnsupportedByBackend(
            "milvus", f"refine {index.shape!r} by {index.refine!r}: it keeps the vectors there, so write refine(flat)"
        )
    if index.shape == "ivf + pq4fs":
        params["with_raw_data"] = "true" if index.refine else "false"  # at Python's True it builds for ever
    elif index.refine:
        params |= {"refine": "true", "refine_type": _REFINES[index.refine]}
    if index.shape == "hnsw + sq8":
        params["sq_type"] = "SQ8"
    made = {"index_type": layout.indexes[index.shape], "metric_type": layout.metrics[spec.metric]}
    return {"field_name": layout.field, **made, "params": {**params, "params": params} if lite else params}


def knobs(index: IndexSpec, params: SearchParams | None, k: int, share: float = 1.0) -> dict[str, int]:
    """The parameters of a search in Milvus's words.

    `share` of the rows that its filter admits: the fewer they are, the farther the index looks.
    """
    given, found = params or SearchParams(), {}
    if index.family == "hnsw":
        found["ef"] = min(ef_under_filter(max(given.ef or 64, k), k, share), _FARTHEST)
    elif index.family == "diskann":
        found["search_list"] = min(ef_under_filter(max(given.ef or 100, k), k, share), _FARTHEST)
    elif index.family == "cagra":
        found["itopk_size"] = max(given.ef or 128, k)
    elif index.family == "ivf":
        lists = index.main.number("nlist", 65_536, 0, 65_536) or 65_536
        found["nprobe"] = min(nprobe_under_filter(given.nprobe or 32, share), lists)
    if index.refine:
        times = given.k_factor or 4
        found |= {"reorder_k": times * k} if index.shape == "ivf + pq4fs" else {"refine_k": times}
    return found


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

    Parameters of an index that are the defaults are left out.
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
    shapes = {native: ours for ours, native in layout.indexes.items()}
    return CollectionSpec(
        described["collection_name"],
        int(fields[layout.field]["params"]["dim"]),
        metrics[str(index.get("metric_type", next(iter(metrics)))).upper()],  # type: ignore[arg-type]
        layout.kind,
        _index_of(shapes.get(str(index.get("index_type", "FLAT")), "flat"), index),
    )


def _layout_of(fields: dict[str, Any]) -> Layout | None:
    for layout in LAYOUTS:
        if layout.field in fields and fields[layout.field]["type"].name == layout.type:
            return layout
    return None


def _index_of(shape: str, index: dict[str, Any]) -> IndexSpec:
    stored = {**index, **(index.get("params") or {})}
    made = IndexSpec.parse(shape)
    told = {part.name: _told(part.name, stored) for part in made.parts}
    refined = any(str(stored.get(name)).lower() == "true" for name in ("with_raw_data", "refine"))
    kinds = {native: ours for ours, native in _REFINES.items()}
    return replace(
        made,
        params=told.get(made.family, {}),
        codes=Part(made.codes.name, told[made.codes.name]) if made.codes else None,
        refine=kinds.get(str(stored.get("refine_type")).upper(), "flat") if refined else "",
    )


def _told(part: str, stored: dict[str, Any]) -> dict[str, int]:
    """The parameters of a part that are not the defaults."""
    known = {ours: (native, default) for ours, (native, default, _, _) in _NATIVE.get(part, {}).items()}
    found = {ours: int(stored[native]) for ours, (native, _) in known.items() if native in stored}
    return {ours: value for ours, value in found.items() if value != known[ours][1]}
