"""The document API of a router: checks what it is handed as Vearch does, and asks the partitions."""

from __future__ import annotations

import uuid
from typing import Any

import numpy as np
from cluster import Cluster, Refused, Space, bad_parameter

_MOST_IDS = 500
_PAGE = 50
_RANGES = ("<", "<=", ">", ">=", "=")
_LONGEST_TEXT = 65_535
_LONGEST_INDEXED = 1_024


def upsert(cluster: Cluster, body: dict[str, Any]) -> dict[str, Any]:
    space = _space(cluster, body)
    documents = [dict(document) for document in body.get("documents") or []]
    if not documents:
        raise bad_parameter("documents is empty")
    for document in documents:
        document.setdefault("_id", uuid.uuid4().hex)  # a document without one gets an id, and a second try a second one
        _check_document(space, document)
    by_id = {document["_id"]: document for document in documents}
    for partition, keys in space.by_partition(by_id):
        partition.call("put", [by_id[key] for key in keys])
    return {"total": len(documents), "document_ids": [{"_id": document["_id"]} for document in documents]}


def delete(cluster: Cluster, body: dict[str, Any]) -> dict[str, Any]:
    space = _space(cluster, body)
    ids = body.get("document_ids") or []
    _check_ids(ids, 400, 3)
    if not ids:
        filters = _filters(space, body)
        if not filters:
            raise Refused(400, 482, "delete_invalid_params_should_have_one_of_document_ids_or_filter")
        limit = body.get("limit") or _PAGE
        ids = [found["_id"] for partition in space.partitions for found in partition.call("query", filters, limit, [])]
    gone = [key for partition, keys in space.by_partition(ids) for key in partition.call("delete", keys)]
    return {"total": len(gone), "document_ids": gone}


def query(cluster: Cluster, body: dict[str, Any]) -> dict[str, Any]:
    space = _space(cluster, body)
    ids, filters = body.get("document_ids") or [], _filters(space, body)
    if ids and filters:
        raise Refused(400, 444, "query_invalid_params_both_document_ids_and_filter")
    _check_ids(ids, 422, 1)
    if not ids and not filters:
        raise Refused(400, 442, "query_invalid_params_should_have_one_of_document_ids_or_filter")
    fields, with_vector = _fields(space, body)
    if ids:
        documents = _got(space, ids)
    else:
        limit = body.get("limit") or _PAGE
        documents = [
            document for partition in space.partitions for document in partition.call("query", filters, limit, fields)
        ][:limit]
        if with_vector:
            documents = _got(space, [document["_id"] for document in documents])
    shown = {"_id", *fields} | ({space.vector["name"]} if with_vector else set())
    documents = [{name: value for name, value in document.items() if name in shown} for document in documents]
    return {"total": len(documents), "documents": documents}


def search(cluster: Cluster, body: dict[str, Any]) -> dict[str, Any]:
    space = _space(cluster, body)
    if not body.get("vectors"):
        raise Refused(500, 460, "search_invalid_params_should_have_vector_field")
    (given,) = body["vectors"]
    if given.get("field") != space.vector["name"]:
        raise bad_parameter(f"field:[{given.get('field')}] not found in space fields")
    binary = space.vector["index"]["type"] == "BINARYIVF"
    dimension = space.vector["dimension"] // (8 if binary else 1)
    feature = np.array(given.get("feature") or [], np.uint8 if binary else np.float32)
    if not len(feature) or len(feature) % dimension:
        raise bad_parameter(
            f"vector embedding length [{len(feature)}] err, dimension is [{dimension}], not equals dimension multiple"
        )
    vectors = feature.reshape(-1, dimension)
    limit, (fields, _) = body.get("limit") or _PAGE, _fields(space, body)
    params, filters = body.get("index_params") or {}, _filters(space, body)
    metric = params.get("metric_type") or space.vector["index"]["params"]["metric_type"]
    merged: list[list[tuple[dict[str, Any], float]]] = [[] for _ in vectors]
    for partition in space.partitions:
        try:
            brute = body.get("is_brute_search") == 1
            found = partition.call("search", vectors, limit, filters, fields, brute=brute, params=params)
        except LookupError as error:
            raise Refused(500, 461, str(error)) from error
        for row, hits in zip(merged, found, strict=True):
            row.extend(hits)
    for row in merged:
        row.sort(key=lambda hit: hit[1] if metric == "L2" else -hit[1])
    return {"documents": [[{**hit, "_score": score} for hit, score in row[:limit]] for row in merged]}


def flush(cluster: Cluster, body: dict[str, Any]) -> dict[str, Any]:
    partitions = len(_space(cluster, body).partitions)
    return {"_shards": {"total": partitions, "successful": partitions, "failed": 0}}


def _got(space: Space, ids: list[str]) -> list[dict[str, Any]]:
    return [document for partition, keys in space.by_partition(ids) for document in partition.call("get", keys)]


def _space(cluster: Cluster, body: dict[str, Any]) -> Space:
    return cluster.meant(body.get("db_name", ""), body.get("space_name", ""))


def _check_ids(ids: list[str], status: int, kind: int) -> None:
    if len(ids) >= _MOST_IDS:
        action = "query" if kind == 1 else "delete"
        raise Refused(status, 440 + kind, f"{action}_invalid_params_length_of_document_ids_beyond_500")


def _check_document(space: Space, document: dict[str, Any]) -> None:
    for name in document:
        if name != "_id" and name not in space.fields:
            raise bad_parameter(f"unrecognizable field, {name} is not found in space fields", 500)
    for name, field in space.fields.items():
        value = document.get(name)
        if value is None:
            raise bad_parameter(f"filed name [{name}]  type is null", 500)
        if field["type"] == "vector":
            binary = field["index"]["type"] == "BINARYIVF"
            if len(value) != field["dimension"] // (8 if binary else 1):
                raise bad_parameter(f"field:[{name}] vector_length err ,schema is:[{field['dimension']}]", 500)
        if field["type"] in ("string", "stringArray"):
            length = len("\001".join([value] if isinstance(value, str) else value).encode())
            if length > (_LONGEST_INDEXED if "index" in field else _LONGEST_TEXT):
                raise bad_parameter(f"string field {name} length should less than {length}", 500)


def _fields(space: Space, body: dict[str, Any]) -> tuple[list[str], bool]:
    """The scalar fields asked for, and whether the vector is."""
    asked = body.get("fields") or [name for name, field in space.fields.items() if field["type"] != "vector"]
    for name in asked:
        if name != "_id" and name not in space.fields:
            raise bad_parameter(f"field [{name}] is not exist in the space")
    vector = space.vector["name"]
    with_vector = vector in asked or bool(body.get("vector_value") and not body.get("fields"))
    return [name for name in asked if name not in ("_id", vector)], with_vector


def _filters(space: Space, body: dict[str, Any]) -> list[dict[str, Any]]:
    given = body.get("filters")
    if not given:
        return []
    if given.get("operator") not in ("AND", "OR"):
        raise Refused(400, 300, "filter_operator_type_err")
    conditions = given.get("conditions") or []
    if given["operator"] == "OR" and len(conditions) > 1:
        raise bad_parameter("the engine of this router joins conditions by AND only")
    for condition in conditions:
        field = space.fields.get(condition.get("field"))
        if field is None:
            raise bad_parameter(f"field:[{condition.get('field')}] not found in space fields")
        if "index" not in field:
            raise bad_parameter(f"field:[{condition['field']}] not set index, please check space")
        terms = condition["operator"] in ("IN", "NOT IN")
        if not terms and condition["operator"] not in _RANGES:
            raise Refused(400, 301, "filter_condition_operator_type_err")
        if terms != (field["type"] in ("string", "stringArray")):
            raise bad_parameter(f"field:[{condition['field']}] takes no {condition['operator']}")
    return list(conditions)
