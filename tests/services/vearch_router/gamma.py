"""One table in the Gamma engine of the package ``vearch`` 3.3.2, and a log of its writes, in place of a cluster's raft.

The engine does what it does in a partition server of that release. Its Python wrapper refuses BINARYIVF, and its quick
way in takes floats only, so tables are put together here and requests go in as flatbuffers, which the engine takes.
Two things lag behind a write, here as there: the scalar index by milliseconds, an index by up to a second.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import vearch
from answer import hits_of

TRAINED_TYPES = ("BINARYIVF", "IVFFLAT", "IVFPQ")
_POINTS = 39  # rows for a centroid to be trained on, as in faiss
_SCALARS = {
    "string": vearch.dataType.STRING,
    "keyword": vearch.dataType.STRING,
    "stringArray": vearch.dataType.STRING,
    "integer": vearch.dataType.INT,
    "long": vearch.dataType.LONG,
    "float": vearch.dataType.FLOAT,
    "double": vearch.dataType.DOUBLE,
}
_NUMBERS = {vearch.dataType.INT: np.int32, vearch.dataType.LONG: np.int64, vearch.dataType.FLOAT: np.float32}
_BETWEEN_ITEMS = "\001"
_WIDEST = 1e30
_LEAST_ANSWER = 8  # bytes


class Table:
    """In an engine of its own. `fields` as in the body of a space."""

    def __init__(self, folder: Path, fields: list[dict[str, Any]]) -> None:
        self.fields = {field["name"]: field for field in fields}
        (self.vector,) = (field for field in fields if field["type"] == "vector")
        self.index = self.vector["index"]
        shutil.rmtree(folder / "engine", ignore_errors=True)
        (folder / "engine").mkdir(parents=True)
        self._engine = vearch.Engine(str(folder / "engine"), str(folder / "logs"))
        self._create()
        self._keys: set[str] = set()
        log = folder / "writes.jsonl"
        if log.exists():
            for line in log.read_text().splitlines():
                self._apply(*json.loads(line))
        self._log = log.open("a")

    def _create(self) -> None:
        params = dict(self.index.get("params") or {})
        table = vearch.GammaTable()
        threshold = params.get("training_threshold") or _POINTS * params.get("ncentroids", 1)
        table.engine = {
            "index_size": threshold if self.index["type"] in TRAINED_TYPES else 1,
            "retrieval_type": self.index["type"],
            "retrieval_param": params,
            "compress_mode": 0,
            "retrieval_types": [],
            "retrieval_params": [],
        }
        table.is_binaryivf = self.index["type"] == "BINARYIVF"
        table.name = "table"
        table.field_infos = {"_id": vearch.GammaFieldInfo("_id", vearch.dataType.STRING, False)}
        for name, field in self.fields.items():
            if field["type"] != "vector":
                table.field_infos[name] = vearch.GammaFieldInfo(name, _SCALARS[field["type"]], "index" in field)
        store = "RocksDB" if self.index["type"] == "IVFFLAT" else "MemoryOnly"  # this release takes no other
        name, dimension = self.vector["name"], self.vector["dimension"]
        table.vec_infos = {
            name: vearch.GammaVectorInfo(name, dimension, store_type=store, store_param={"cache_size": 16})
        }
        table.norms = {name: {}}
        buffer = np.array(table.serialize())
        if vearch.swigCreateTable(self._engine.c_engine, vearch.swig_ptr(buffer), len(buffer)) != 0:
            raise RuntimeError(f"the engine makes no table with the index {self.index}")
        self._engine.gamma_table = table

    # -- writing -------------------------------------------------------------------------------

    def put(self, documents: list[dict[str, Any]]) -> None:
        """Write documents that have been checked, each with its ``_id``."""
        for document in documents:
            self._logged("put", document)

    def delete(self, keys: list[str]) -> list[str]:
        """Remove documents; those that were there."""
        there = [key for key in keys if key in self._keys]
        for key in there:
            self._logged("delete", key)
        return there

    def _logged(self, action: str, what: Any) -> None:
        self._log.write(json.dumps([action, what]) + "\n")
        self._log.flush()
        self._apply(action, what)

    def _apply(self, action: str, what: Any) -> None:
        if action == "delete":
            self._engine.del_doc(what)
            self._keys.remove(what)
            return
        native: dict[str, Any] = {"_id": what["_id"]}
        for name, field in self.fields.items():
            value = what[name]
            if field["type"] == "vector":
                value = np.array(value, np.uint8 if self._engine.gamma_table.is_binaryivf else np.float32)
            elif field["type"] == "stringArray":
                value = _BETWEEN_ITEMS.join(value)
            elif field["type"] in ("float", "double"):
                value = float(value)
            native[name] = value
        buffer, _ = vearch.GammaDoc().create_doc_item(self._engine.gamma_table, native["_id"], native)
        if vearch.swigAddOrUpdateDoc(self._engine.c_engine, vearch.swig_ptr(buffer), len(buffer)) != 0:
            raise RuntimeError(f"the engine does not take the document {what['_id']!r}")
        self._keys.add(what["_id"])

    # -- reading -------------------------------------------------------------------------------

    def get(self, keys: list[str]) -> list[dict[str, Any]]:
        """The documents that are there, with their vectors."""
        found = [self._engine.get_doc_by_id(key) for key in keys if key in self._keys]
        return [{name: self._json(name, value) for name, value in one.items()} for one in found]

    def _json(self, name: str, value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return value.tolist()
        if self.fields.get(name, {}).get("type") == "stringArray":
            return value.split(_BETWEEN_ITEMS)
        return value.item() if isinstance(value, np.generic) else value

    def query(self, filters: list[dict[str, Any]], limit: int, fields: list[str]) -> list[dict[str, Any]]:
        """Documents that pass every condition, in no promised order."""
        request = self._built(filters, limit, fields)
        request.brute_force_search = 1  # or an index that is not trained refuses what is no search
        (found,) = self._request(request)
        return [document for document, _ in found]

    def search(
        self,
        vectors: np.ndarray[Any, Any],
        limit: int,
        filters: list[dict[str, Any]],
        fields: list[str],
        *,
        brute: bool,
        params: dict[str, Any],
    ) -> list[list[tuple[dict[str, Any], float]]]:
        """For each query the best documents with their scores. Raises LookupError when the index is not trained."""
        request = self._built(filters, limit, fields)
        request.req_num = len(vectors)
        request.brute_force_search = int(brute)
        request.retrieval_params = json.dumps({**(self.index.get("params") or {}), **params})
        request.vec_fields = [
            vearch.GammaVectorQuery(self.vector["name"], vectors.ravel(), -_WIDEST, _WIDEST, 1, 0, "")
        ]
        return self._request(request)

    def _built(self, filters: list[dict[str, Any]], limit: int, fields: list[str]) -> Any:
        request = vearch.GammaRequest()
        request.req_num, request.topn = 1, limit
        request.fields = [*fields, "_id"]
        for condition in filters:
            name, value = condition["field"], condition["value"]
            if condition["operator"] in ("IN", "NOT IN"):
                among = 1 if condition["operator"] == "IN" else 2
                request.term_filters.append(vearch.GammaTermFilter(name, _BETWEEN_ITEMS.join(value), among))
            else:
                request.range_filters.append(self._range(name, condition["operator"], value))
        return request

    def _range(self, name: str, operator: str, value: float) -> Any:
        kind = _NUMBERS.get(_SCALARS[self.fields[name]["type"]], np.float64)
        limits = np.iinfo(kind) if np.issubdtype(kind, np.integer) else np.finfo(kind)
        low, high = np.array([limits.min], kind), np.array([limits.max], kind)
        given = np.array([value], kind)
        if operator in (">", ">=", "="):
            low = given
        if operator in ("<", "<=", "="):
            high = given
        return vearch.GammaRangeFilter(name, low, high, operator != ">", operator != "<")

    def _request(self, request: Any) -> list[list[tuple[dict[str, Any], float]]]:
        buffer = np.array(request.serialize())
        out = vearch.swigSearch(self._engine.c_engine, vearch.swig_ptr(buffer), len(buffer))
        copy = np.empty(out.size(), np.uint8)
        if copy.size:
            vearch.memcpy(vearch.swig_ptr(copy), vearch.swigGetVectorPtr(out), copy.nbytes)
        raw = copy.tobytes()
        if len(raw) < _LEAST_ANSWER:  # the engine says no more than that it failed, or that no row passes the filters
            if request.vec_fields and self.index["type"] in TRAINED_TYPES and not self.status()["index_num"]:
                raise LookupError("index not trained!")
            return [[] for _ in range(request.req_num)]
        return [[(self._document(fields), score) for score, fields in hits] for hits in hits_of(raw)]

    def _document(self, fields: dict[str, bytes]) -> dict[str, Any]:
        document: dict[str, Any] = {}
        for name, raw in fields.items():
            kind = vearch.dataType.STRING if name == "_id" else _SCALARS[self.fields[name]["type"]]
            text = kind == vearch.dataType.STRING
            value = raw.decode() if text else np.frombuffer(raw, _NUMBERS.get(kind, np.float64))[0]
            document[name] = self._json(name, value)
        return document

    def status(self) -> dict[str, int]:
        """As in a partition of a space's detail."""
        status = self._engine.get_status()
        return {
            "doc_num": status["doc_num"],
            "max_docid": status["max_docid"],
            "index_num": status["min_indexed_num"],
            "index_status": status["index_status"],
        }
