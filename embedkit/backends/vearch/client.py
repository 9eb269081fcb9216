"""Vearch's REST API with types, through the official client where it has the call.

The client has no aliases, no detail of a space and no certificates; those go through its session, and so do documents
that are written, whose JSON is our own (see `writing`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import quote

from embedkit.backends.validation import closed
from embedkit.backends.vearch.errors import Refusal, translated

__all__ = ["Condition", "Document", "VearchClient"]

Document: TypeAlias = dict[str, Any]
MOST_IDS = 499  # of one request


@dataclass(frozen=True, slots=True)
class Condition:
    """``field operator value``: ``IN`` and ``NOT IN`` with texts, comparisons with a number. All must hold."""

    field: str
    operator: str
    value: Any


class VearchClient:
    """Calls on one database. Safe to use from several threads. Every method raises only embedkit's errors.

    `rest`: a ``vearch.core.client.RestClient`` with a VearchSession in it.
    """

    def __init__(self, rest: Any, db: str, url: str) -> None:
        self._open_rest, self.db, self.url = rest, db, url

    @property
    def _rest(self) -> Any:
        if self._open_rest is None:
            raise closed(self.url)
        return self._open_rest

    def close(self) -> None:
        rest, self._open_rest = self._open_rest, None
        if rest is not None:
            rest.s.close()

    # -- databases and spaces ------------------------------------------------------------------

    def has_db(self) -> bool:
        """Whether the database is there; the first call, which tells whether anybody answers."""
        with translated(self.url):
            return _unless_unknown(lambda: self._rest._get_db_detail(self.db)) is not None

    def dbs(self) -> list[str]:
        """Their names, which not every user may see."""
        with translated(self.url):
            return sorted(db["name"] for db in self._rest._list_db().data or [])

    def spaces(self) -> list[str]:
        with translated(self.url):
            return [space["space_name"] for space in self._rest._list_space(self.db).data or []]

    def space(self, space: str, name: str) -> dict[str, Any]:
        """The info of a space, with the state of its partitions. `name`: what an error calls it."""
        with translated(self.url, name):
            info: dict[str, Any] = self._data("GET", f"/dbs/{quote(self.db)}/spaces/{quote(space)}?detail=true")
            return info

    def create_space(self, schema: Any, name: str) -> None:
        """Make a space of a ``vearch.schema.space.SpaceSchema``. Raises CollectionExists, UnsupportedByBackend."""
        with translated(self.url, name):
            self._rest._create_space(self.db, schema)

    def drop_space(self, space: str) -> None:
        """One that is not there is no error."""
        with translated(self.url):
            _unless_unknown(lambda: self._rest._drop_space(self.db, space))

    # -- aliases, which the whole cluster shares -----------------------------------------------

    def alias(self, alias: str) -> str | None:
        """The space of this database that an alias stands for; None if there is no such alias."""
        with translated(self.url):
            found = _unless_unknown(lambda: self._data("GET", f"/alias/{quote(alias)}"))
            return str(found["space_name"]) if found and found.get("db_name") == self.db else None

    def aliases(self) -> dict[str, str]:
        """The aliases of spaces of this database."""
        with translated(self.url):
            found = _unless_unknown(lambda: self._data("GET", "/alias")) or []
            return {one["name"]: one["space_name"] for one in found if one.get("db_name") == self.db}

    def put_alias(self, alias: str, space: str, *, new: bool) -> None:
        path = f"/alias/{quote(alias)}/dbs/{quote(self.db)}/spaces/{quote(space)}"
        with translated(self.url, alias):
            self._data("POST" if new else "PUT", path)

    def drop_alias(self, alias: str) -> None:
        with translated(self.url):
            _unless_unknown(lambda: self._data("DELETE", f"/alias/{quote(alias)}"))

    def _data(self, method: str, path: str, body: bytes | None = None) -> Any:
        headers = {"Content-Type": "application/json"} if body else None
        return self._rest.s.request(method, self._rest.host + path, data=body, headers=headers).json().get("data")

    # -- documents -----------------------------------------------------------------------------

    def upsert(self, space: str, documents: Sequence[str], name: str) -> None:
        """Write documents, given as JSON."""
        head = f'{{"db_name":{json.dumps(self.db)},"space_name":{json.dumps(space)},"documents":['
        body = "".join((head, ",".join(documents), "]}")).encode()
        with translated(self.url, name):
            answer = self._data("POST", "/document/upsert", body)
            for one in (answer or {}).get("document_ids") or []:
                if one.get("code") not in (None, 0, 200):
                    raise Refusal(500, int(one["code"]), f"document {one.get('_id')}: {one.get('msg')}")

    def delete(self, space: str, keys: Sequence[str], name: str) -> None:
        with translated(self.url, name):
            for start in range(0, len(keys), MOST_IDS):
                some = list(keys[start : start + MOST_IDS])
                self._rest._delete_documents(self.db, space, document_ids=some, limit=len(some))

    def get(self, space: str, keys: Sequence[str], fields: Sequence[str], name: str) -> list[Document]:
        """Documents by id, those that are there, in no promised order."""
        found: list[Document] = []
        with translated(self.url, name):
            for start in range(0, len(keys), MOST_IDS):
                some = list(keys[start : start + MOST_IDS])
                answer = self._rest._query_documents(
                    self.db, space, document_ids=some, fields=list(fields), vector=True, limit=len(some)
                )
                found.extend(one for one in answer.documents or [] if all(field in one for field in fields))
        return found

    def query(
        self, space: str, conditions: Sequence[Condition], limit: int, fields: Sequence[str], name: str
    ) -> list[Document]:
        """At most `limit` documents that pass every condition, in no promised order."""
        with translated(self.url, name):
            answer = self._rest._query_documents(
                self.db, space, filter=_filter(conditions), fields=list(fields), vector=True, limit=limit
            )
            return list(answer.documents or [])

    def search(
        self,
        space: str,
        field: str,
        feature: list[Any],
        limit: int,
        conditions: Sequence[Condition],
        fields: Sequence[str],
        name: str,
        *,
        brute: bool,
        params: Mapping[str, Any],
    ) -> list[list[Document]]:
        """For each query (`feature` holds them one behind the other) the best documents, with ``_score``."""
        from vearch.utils import VectorInfo

        with translated(self.url, name):
            answer = self._rest._search_documents(
                self.db,
                space,
                [VectorInfo(field, feature)],
                filter=_filter(conditions) if conditions else None,
                fields=list(fields),
                limit=limit,
                is_brute_search=int(brute),
                index_params=dict(params),
            )
            return list(answer.documents or [])

    def flush(self, space: str, name: str) -> None:
        with translated(self.url, name):
            self._rest.s.request(
                "POST", f"{self._rest.host}/index/flush", json={"db_name": self.db, "space_name": space}
            )


def _unless_unknown(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except Refusal as error:
        if error.unknown_name:
            return None
        raise


def _filter(conditions: Sequence[Condition]) -> Any:
    from vearch import filter as native

    parts = [native.Condition(one.operator, native.FieldValue(one.field, one.value)) for one in conditions]
    return native.Filter(native.BooleanOperator.AND, parts)
