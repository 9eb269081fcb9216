"""What a master knows: databases, spaces, aliases; and the errors that it and a router answer with."""

from __future__ import annotations

import json
import os
import re
import threading
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from partition import INDEX_TYPES, SCALARS, Partition

_BAD_NAME = re.compile(r"[\t\n\v\f\r \\+\-!*/():^\[\]\"{}~%&'<>?]")
_METRICS = ("InnerProduct", "L2")
_LIMITS = {"nlinks": (8, 96), "efConstruction": (16, 1024), "ncentroids": (1, 65_536)}


class Refused(Exception):
    """An answer that is no success: an HTTP status, Vearch's code and its message."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


# The codes are those in pyvearch's const.py; messages are the names of the server's error numbers in lower case.
def unauthorized(message: str) -> Refused:
    return Refused(401, 3, message)


def bad_parameter(message: str, status: int = 400) -> Refused:
    return Refused(status, 6, message)


def db_not_exist() -> Refused:
    return Refused(404, 200, "db_not_exist")


def space_not_exist(status: int = 404) -> Refused:
    return Refused(status, 221, "space_not_exist")


class Space:
    """A space and its partitions. `body` is what it was made with."""

    def __init__(self, folder: Path, body: dict[str, Any]) -> None:
        self.body = body
        self.fields = {field["name"]: field for field in body["fields"]}
        self.partitions = [Partition(folder / str(number), body["fields"]) for number in range(body["partition_num"])]

    @property
    def vector(self) -> dict[str, Any]:
        return self.partitions[0].vector

    def by_partition(self, keys: Iterable[str]) -> list[tuple[Partition, list[str]]]:
        """The partitions in which documents of these ids lie, with their ids."""
        parted: dict[int, list[str]] = {}
        for key in keys:
            parted.setdefault(zlib.crc32(key.encode()) % len(self.partitions), []).append(key)
        return [(self.partitions[number], some) for number, some in parted.items()]

    def info(self, db: str, *, detail: bool) -> dict[str, Any]:
        statuses = [partition.call("status") for partition in self.partitions]
        shown = [
            {"pid": number, "name": self.body["name"], **(status if detail else {"doc_num": status["doc_num"]})}
            for number, status in enumerate(statuses)
        ]
        return {
            "space_name": self.body["name"],
            "db_name": db,
            "doc_num": sum(status["doc_num"] for status in statuses),
            "partition_num": self.body["partition_num"],
            "replica_num": self.body["replica_num"],
            "schema": {"fields": self.body["fields"]},
            "status": "green",
            "partitions": shown,
        }


class Cluster:
    """Kept in a folder, so that another process goes on with it. `lose_updates`: claim to change an alias, and do not,
    as a server whose store refuses the change does."""

    def __init__(self, folder: Path, *, lose_updates: bool) -> None:
        self._folder, self._lose_updates = folder, lose_updates
        self.lock = threading.RLock()
        self._state = folder / "cluster.json"
        known = json.loads(self._state.read_text()) if self._state.exists() else {"dbs": {}, "aliases": {}, "next": 1}
        self.aliases: dict[str, dict[str, str]] = known["aliases"]
        self._next: int = known["next"]
        self.dbs: dict[str, dict[str, Space]] = {
            db: {name: self._space(body) for name, body in spaces.items()} for db, spaces in known["dbs"].items()
        }

    def _space(self, body: dict[str, Any]) -> Space:
        return Space(self._folder / f"space-{body['id']}", body)

    def _save(self) -> None:
        dbs = {db: {name: space.body for name, space in spaces.items()} for db, spaces in self.dbs.items()}
        new = self._state.with_suffix(".new")
        new.write_text(json.dumps({"dbs": dbs, "aliases": self.aliases, "next": self._next}))
        os.replace(new, self._state)

    # -- databases and spaces ------------------------------------------------------------------

    def spaces_of(self, db: str) -> dict[str, Space]:
        if db not in self.dbs:
            raise db_not_exist()
        return self.dbs[db]

    def space(self, db: str, name: str) -> Space:
        if name not in self.spaces_of(db):
            raise space_not_exist()
        return self.dbs[db][name]

    def meant(self, db: str, name: str) -> Space:
        """What the document API takes a name for: an alias first, whatever its database, then a space."""
        name = self.aliases.get(name, {}).get("space_name", name)
        try:
            return self.space(db, name)
        except Refused as error:
            raise Refused(500, error.code, error.message) from error

    def create_db(self, db: str) -> dict[str, str]:
        if db in self.dbs:
            raise Refused(500, 201, "db_exist")
        self.dbs[db] = {}
        self._save()
        return {"name": db}

    def drop_db(self, db: str) -> None:
        if self.spaces_of(db):
            raise Refused(500, 202, "db_not_empty")
        del self.dbs[db]
        self._save()

    def create_space(self, db: str, body: dict[str, Any]) -> dict[str, Any]:
        body = {"partition_num": 1, "replica_num": 1, **body}
        _check_name(body.get("name", ""), "space")
        _check_fields(body.get("fields") or [])
        if body["replica_num"] > 1:
            raise Refused(500, 1, f"not enough PS , need replica {body['replica_num']} but only has 1")
        spaces = self.spaces_of(db)
        if body["name"] in spaces:
            raise Refused(500, 220, "space_exist")
        body["id"] = self._next
        self._next += 1
        spaces[body["name"]] = self._space(body)
        self._save()
        return body

    def drop_space(self, db: str, name: str) -> None:
        space = self.space(db, name)
        del self.dbs[db][name]
        self._save()
        for partition in space.partitions:
            partition.drop()

    # -- aliases -------------------------------------------------------------------------------

    def alias(self, name: str) -> dict[str, str]:
        if name not in self.aliases:
            raise Refused(404, 240, "alias_not_exist")
        return self.aliases[name]

    def put_alias(self, name: str, db: str, space: str, *, new: bool) -> dict[str, str]:
        _check_name(name, "alias")
        self.space(db, space)
        if new and name in self.aliases:
            raise Refused(500, 241, "alias_exist")
        if not new:
            self.alias(name)
        alias = {"name": name, "db_name": db, "space_name": space}
        if new or not self._lose_updates:
            self.aliases[name] = alias
            self._save()
        return alias

    def drop_alias(self, name: str) -> None:
        self.alias(name)
        del self.aliases[name]
        self._save()


def _check_name(name: str, what: str) -> None:
    if not name:
        raise bad_parameter(f"{what} name can not set empty string")
    if name[0].isnumeric() or name[0] == "_":
        raise bad_parameter(f"{what} name : {name} can not start with {'_' if name[0] == '_' else 'num'}")
    bad = _BAD_NAME.search(name)
    if bad:
        raise bad_parameter(f"character '{bad[0]}' can not in {what} name[{name}]")


def _check_fields(fields: list[dict[str, Any]]) -> None:
    vectors = [field for field in fields if field.get("type") == "vector"]
    if len(vectors) != 1 or "index" not in vectors[0]:
        raise bad_parameter("this router wants one vector field, with an index")
    for field in fields:
        if field["type"] not in (*SCALARS, "vector"):
            raise bad_parameter(f"space invalid field type: {field['type']}")
    if not vectors[0].get("dimension"):
        raise bad_parameter(f"dimension can not be zero by field : [{vectors[0]['name']}] ")
    _check_index(vectors[0]["index"], vectors[0]["dimension"])


def _check_index(index: dict[str, Any], dimension: int) -> None:
    kind, params = index.get("type", ""), index.get("params") or {}
    if kind not in INDEX_TYPES:
        raise bad_parameter(f"index type not support: {kind}" if kind else "index type is null")
    metric = params.get("metric_type")
    if metric not in _METRICS:
        raise bad_parameter(f"index params metric_type not support: {metric}, should be L2 or InnerProduct")
    for name, (low, high) in _LIMITS.items():
        if params.get(name) and not low <= params[name] <= high:
            raise bad_parameter(f"index params {name}:{params[name]} should in [{low}, {high}]")
    centroids, threshold = params.get("ncentroids", 0), params.get("training_threshold", 0)
    if threshold and threshold < centroids:
        raise bad_parameter(f"{kind} training_threshold:[{threshold}] should more than ncentroids:[{centroids}]")
    if threshold > 256 * centroids:
        raise bad_parameter(f"{kind} training_threshold:[{threshold}] should less than 256 * ncentroids({centroids})")
    if kind == "IVFPQ" and dimension % params.get("nsubvector", 1):
        raise bad_parameter(f"dimension {dimension} is no multiple of nsubvector {params['nsubvector']}")
    if kind == "BINARYIVF" and dimension % 8:
        raise bad_parameter(f"BINARYIVF vector dimension {dimension} is no multiple of 8")
