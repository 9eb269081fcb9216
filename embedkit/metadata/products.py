"""The store's part that knows products and their vectors: the two-step write, and every read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa

from embedkit.metadata.failures import forget, remember
from embedkit.metadata.full_text import product_words
from embedkit.metadata.models import Collection, IngestRun, table_of
from embedkit.metadata.models import Product as ProductTable
from embedkit.metadata.models import Vector as VectorTable
from embedkit.metadata.rows import FailureWrite, KnownProduct, KnownVector, ProductWrite, RunCounts
from embedkit.metadata.session import Session, inserting, parts
from embedkit.types import Product

__all__ = ["Products"]

_P = table_of(ProductTable)
_V = table_of(VectorTable)
_R = table_of(IngestRun)

_IN_PATHS = frozenset('"\\{},')  # what has a meaning within a path of JSON

# The hot path, in the driver's own words: one text whatever the number of ids, and nothing to compile. The + keeps
# a database from looking every id up in the index of collections.
_PRODUCT = "p.key, p.title, p.uri, CAST(p.attributes AS TEXT), p.content_hash"
_BY_VECTOR = f"""
SELECT v.id, {_PRODUCT}
FROM vector AS v JOIN product AS p ON p.id = v.product_id
WHERE v.id {{}} AND +v.collection_id = {{}} AND v.view = {{}} AND v.state = 'live' AND NOT p.deleted
"""
_BY_VECTOR_IN = {
    "sqlite": _BY_VECTOR.format("IN (SELECT value FROM json_each(?))", "?", "?"),
    "postgresql": _BY_VECTOR.format("IN (SELECT json_array_elements_text(%s::json)::bigint)", "%s", "%s"),
}
_PAGE = f"""
SELECT {_PRODUCT}
FROM product AS p
WHERE p.collection_id = {{0}} AND p.key > {{0}} AND NOT p.deleted AND p.last_run IS NOT NULL
ORDER BY p.key LIMIT {{0}}
"""
_PAGE_OF = {"sqlite": _PAGE.format("?"), "postgresql": _PAGE.format("%s")}
_RUN = sa.bindparam("b_last_run", type_=_P.c.last_run.type)
_SET_PRODUCT = (
    sa.update(_P)
    .where(_P.c.collection_id == sa.bindparam("b_cid"), _P.c.key == sa.bindparam("b_key"))
    .values(
        {
            name: sa.bindparam(f"b_{name}", type_=_P.c[name].type)
            for name in ("title", "uri", "attributes", "content_hash", "validator", "words")
        }
    )
    .values(last_run=sa.case((_P.c.last_run > _RUN, _P.c.last_run), else_=_RUN))
)
_NOTHING: dict[str, object] = {  # what a product is before it is committed, for the first time or again
    **dict.fromkeys(("title", "uri", "content_hash", "validator", "last_run", "words")),
    "attributes": {},
    "deleted": False,
}
_SET_VECTOR = (
    sa.update(_V)
    .where(_V.c.product_id == sa.bindparam("b_product"), _V.c.view == sa.bindparam("b_view"))
    .values(state="live", content_hash=sa.bindparam("b_hash"), fingerprint=sa.bindparam("b_fingerprint"))
)


def _product(row: sa.Row[Any]) -> Product:
    return Product(row.key, row.title, row.uri, row.attributes, row.content_hash)


def _product_of(key: str, title: str | None, uri: str | None, attributes: str, content_hash: str | None) -> Product:
    """The same in the driver's own words."""
    return Product(key, title, uri, json.loads(attributes), content_hash)


def _product_ids(connection: sa.Connection, cid: int, keys: Sequence[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for part in parts(keys):
        rows = connection.execute(sa.select(_P.c.key, _P.c.id).where(_P.c.collection_id == cid, _P.c.key.in_(part)))
        found.update((row.key, row.id) for row in rows)
    return found


def _vector_ids(connection: sa.Connection, products: Sequence[int]) -> dict[tuple[int, str], int]:
    found: dict[tuple[int, str], int] = {}
    for part in parts(products):
        rows = connection.execute(sa.select(_V.c.id, _V.c.product_id, _V.c.view).where(_V.c.product_id.in_(part)))
        found.update(((row.product_id, row.view), row.id) for row in rows)
    return found


def _version_of(slot: str) -> int:
    """The number in the name of a slot (`ViewRow.slot`)."""
    return int(slot.rpartition("@v")[2]) if "@v" in slot else 1


def _is_there(cid: int) -> sa.ColumnElement[bool]:
    """Whether a product is in a collection: it was committed, which a row of `begin` alone was not, and not deleted."""
    return sa.and_(_P.c.collection_id == cid, _P.c.deleted.is_(False), _P.c.last_run.is_not(None))


def _blank(cid: int, key: str) -> dict[str, object]:
    return {"collection_id": cid, "key": key, **_NOTHING}


class Products(Session):
    """Products with their vectors."""

    # -- writing in two steps --------------------------------------------------------------------

    def begin(self, cid: int, writes: Sequence[ProductWrite]) -> list[dict[str, int]]:
        """First step: issue ids. Returns for each write ``{view: vector id}``, ascending in order.

        New products get a row, which no answer shows before it is committed; the vectors of `write.vectors` become
        ``pending``, and one that exists keeps its id. Nothing else of a product changes yet.
        """
        with self._write() as connection:
            ids = self._with_products(connection, cid, [write.key for write in writes])
            existing = _vector_ids(connection, list(ids.values()))
            wanted = [(ids[write.key], view) for write in writes for view in write.vectors]
            fresh = [pair for pair in wanted if pair not in existing]
            again = [existing[pair] for pair in wanted if pair in existing]
            for part in parts(again):
                connection.execute(sa.update(_V).where(_V.c.id.in_(part)).values(state="pending"))
            existing.update(self._issued(connection, cid, fresh))
        return [{view: existing[ids[write.key], view] for view in write.vectors} for write in writes]

    def _with_products(self, connection: sa.Connection, cid: int, keys: Sequence[str]) -> dict[str, int]:
        ids = _product_ids(connection, cid, keys)
        new = sorted({key for key in keys if key not in ids})  # in one order, lest two writers wait for each other
        if new:
            fresh = inserting(connection, _P).on_conflict_do_nothing(index_elements=["collection_id", "key"])
            connection.execute(fresh, [_blank(cid, key) for key in new])
            ids.update(_product_ids(connection, cid, new))
        for part in parts(list(ids.values())):
            back = sa.update(_P).where(_P.c.id.in_(part), _P.c.deleted)
            connection.execute(back.values(_NOTHING))
        return ids

    def _issued(
        self, connection: sa.Connection, cid: int, pairs: Sequence[tuple[int, str]]
    ) -> dict[tuple[int, str], int]:
        if not pairs:
            return {}
        values = [
            {
                "collection_id": cid,
                "product_id": product,
                "view": view,
                "version": _version_of(view),
                "state": "pending",
                "content_hash": "",
                "fingerprint": "",
            }
            for product, view in pairs
        ]
        fresh = inserting(connection, _V).on_conflict_do_nothing(index_elements=["product_id", "view"])
        rows = connection.execute(fresh.returning(_V.c.id, _V.c.product_id, _V.c.view), values)
        issued = {(row.product_id, row.view): row.id for row in rows}
        others = [product for product, view in pairs if (product, view) not in issued]
        return {**_vector_ids(connection, others), **issued}  # others: another ingest has just begun the same

    def commit(
        self,
        cid: int,
        *,
        run_id: int,
        writes: Sequence[ProductWrite],
        failures: Sequence[FailureWrite] = (),
        skipped: Sequence[str] = (),
        places: Sequence[str] = (),
        offset: int,
        counts: RunCounts,
    ) -> None:
        """Last step, one transaction: products as written, their vectors ``live``, the run's checkpoint.

        The failures of written and skipped keys are forgotten, those of `failures` are remembered. `places`: the
        locators of the records that went in; one that had no key until now failed under its locator.
        """
        failed = {failure.key for failure in failures}
        with self._write() as connection:
            ids = self._with_products(connection, cid, [write.key for write in writes]) if writes else {}
            self._set_products(connection, cid, run_id, writes)
            self._set_vectors(connection, writes, ids)
            for part in parts(skipped):
                older = sa.or_(_P.c.last_run.is_(None), _P.c.last_run < run_id)
                connection.execute(
                    sa.update(_P).where(_P.c.collection_id == cid, _P.c.key.in_(part), older).values(last_run=run_id)
                )
            forget(connection, cid, [key for key in (*ids, *skipped, *places) if key not in failed])
            remember(connection, cid, failures)
            connection.execute(sa.update(_R).where(_R.c.id == run_id).values(offset=offset, counts=asdict(counts)))

    def commit_vectors(
        self, cid: int, writes: Sequence[ProductWrite], failures: Sequence[FailureWrite], *, stage: str
    ) -> None:
        """Last step where only vectors were made: they are ``live``, their products as they were.

        Failures of that `stage` are forgotten or remembered; those of other stages stay, with their record.
        """
        with self._write() as connection:
            ids = _product_ids(connection, cid, [write.key for write in writes])
            self._set_vectors(connection, writes, ids)
            forget(connection, cid, list(ids), stage=stage)
            remember(connection, cid, failures, only=stage)

    def _set_products(self, connection: sa.Connection, cid: int, run_id: int, writes: Sequence[ProductWrite]) -> None:
        if not writes:
            return
        collection = table_of(Collection)
        paths = connection.execute(sa.select(collection.c.keywords).where(collection.c.id == cid)).scalar() or ()
        values = [
            {
                "b_cid": cid,
                "b_key": write.key,
                "b_title": write.title,
                "b_uri": write.uri,
                "b_attributes": dict(write.attributes),
                "b_content_hash": write.content_hash,
                "b_validator": write.validator,
                "b_last_run": run_id,
                "b_words": product_words(write.title, write.attributes, paths),
            }
            for write in writes
        ]
        connection.execute(_SET_PRODUCT, values)

    def _set_vectors(self, connection: sa.Connection, writes: Sequence[ProductWrite], ids: Mapping[str, int]) -> None:
        values = [
            {"b_product": ids[write.key], "b_view": view, "b_hash": content_hash, "b_fingerprint": fingerprint}
            for write in writes
            for view, (content_hash, fingerprint) in write.vectors.items()
        ]
        if values:
            connection.execute(_SET_VECTOR, values)

    # -- reading ---------------------------------------------------------------------------------

    def known(self, cid: int, keys: Sequence[str]) -> dict[str, KnownProduct]:
        """What the store knows of these keys; unknown keys are left out."""
        found: dict[str, KnownProduct] = {}
        with self._read() as connection:
            for part in parts(keys):
                where = (_is_there(cid), _P.c.key.in_(part))
                vectors: dict[int, dict[str, KnownVector]] = {}
                joined = sa.select(_V).join(_P, _P.c.id == _V.c.product_id).where(*where)
                for row in connection.execute(joined):
                    vectors.setdefault(row.product_id, {})[row.view] = KnownVector(
                        row.id, row.content_hash, row.fingerprint, row.state
                    )
                for row in connection.execute(sa.select(_P).where(*where)):
                    found[row.key] = KnownProduct(
                        id=row.id,
                        key=row.key,
                        title=row.title,
                        uri=row.uri,
                        attributes=row.attributes,
                        content_hash=row.content_hash,
                        validator=row.validator,
                        last_run=row.last_run,
                        vectors=vectors.get(row.id, {}),
                    )
        return found

    def products_by_vector(self, cid: int, view: str, ids: Sequence[int]) -> dict[int, Product]:
        """Live products by the id of their live vector; the one statement of a search."""
        statement = _BY_VECTOR_IN[self._engine.dialect.name]
        rows = self._rows(statement, (json.dumps(ids), cid, view))
        return {vector_id: _product_of(*product) for vector_id, *product in rows}

    def product(self, cid: int, key: str) -> Product | None:
        return self.products(cid, [key]).get(key)

    def products(self, cid: int, keys: Sequence[str]) -> dict[str, Product]:
        """Products by key; unknown keys are left out."""
        found: dict[str, Product] = {}
        with self._read() as connection:
            for part in parts(keys):
                rows = connection.execute(sa.select(_P).where(_is_there(cid), _P.c.key.in_(part)))
                found.update((row.key, _product(row)) for row in rows)
        return found

    def keys(self, cid: int) -> list[str]:
        """Every key, in order."""
        return [key for page in self.key_pages(cid, batch=10_000) for key in page]

    def key_pages(self, cid: int, *, batch: int = 1_000) -> Iterator[list[str]]:
        """Keys in order, in pieces; the caller may write while it reads."""
        query = sa.select(_P.c.key).where(_is_there(cid), _P.c.key > sa.bindparam("after"))
        query, after = query.order_by(_P.c.key).limit(batch), ""
        while True:
            with self._read() as connection:
                keys = list(connection.execute(query, {"after": after}).scalars())
            if not keys:
                return
            yield keys
            after = keys[-1]

    def product_pages(self, cid: int, *, batch: int = 1_000) -> Iterator[list[Product]]:
        """Products in the order of their keys, in pieces; the caller may write while it reads."""
        statement, after = _PAGE_OF[self._engine.dialect.name], ""
        while rows := self._rows(statement, (cid, after, batch)):
            yield [_product_of(*row) for row in rows]
            after = rows[-1][0]

    def count_products(self, cid: int) -> int:
        query = sa.select(sa.func.count()).select_from(_P).where(_is_there(cid))
        with self._read() as connection:
            return connection.execute(query).scalar_one()

    def has_attribute(self, cid: int, path: Sequence[str]) -> bool:
        """Whether any product has a value at a path; also where a path of both databases cannot hold a step."""
        if any(not step.isprintable() or set(step) & _IN_PATHS for step in path):
            return True
        has = _P.c.attributes[tuple(path)].as_string().is_not(None)
        query = sa.select(_P.c.id).where(_is_there(cid), has)
        with self._read() as connection:
            return connection.execute(query.limit(1)).first() is not None

    def unseen(self, cid: int, *, run_id: int, batch: int = 1_000) -> Iterator[list[str]]:
        """Keys that neither a run nor a later one has seen, in pieces; the caller may delete them while it reads."""
        after = ""
        while True:
            query = (
                sa.select(_P.c.key)
                .where(
                    _P.c.collection_id == cid,
                    _P.c.key > after,
                    _P.c.deleted.is_(False),
                    sa.or_(_P.c.last_run.is_(None), _P.c.last_run < run_id),
                )
                .order_by(_P.c.key)
                .limit(batch)
            )
            with self._read() as connection:
                keys = list(connection.execute(query).scalars())
            if not keys:
                return
            yield keys
            after = keys[-1]

    def duplicates(self, cid: int, *, limit: int = 100) -> list[tuple[str, tuple[str, ...]]]:
        """Content hashes that several products share, with their keys."""
        query = self._shared(cid).order_by(_P.c.content_hash).limit(limit)
        with self._read() as connection:
            hashes = list(connection.execute(query).scalars())
            rows = connection.execute(
                sa.select(_P.c.content_hash, _P.c.key)
                .where(_P.c.collection_id == cid, _P.c.content_hash.in_(hashes), _P.c.deleted.is_(False))
                .order_by(_P.c.content_hash, _P.c.key)
            ).all()
        grouped: dict[str, list[str]] = {}
        for content_hash, key in rows:
            grouped.setdefault(content_hash, []).append(key)
        return [(content_hash, tuple(keys)) for content_hash, keys in grouped.items()]

    def keys_by_hash(self, cid: int, hashes: Sequence[str]) -> Iterator[tuple[str, str]]:
        """(content hash, key) of every product whose picture is one of these."""
        for part in parts(hashes):
            query = sa.select(_P.c.content_hash, _P.c.key).where(
                _P.c.collection_id == cid, _P.c.content_hash.in_(part), _P.c.deleted.is_(False)
            )
            with self._read() as connection:
                found = [(row.content_hash, row.key) for row in connection.execute(query)]
            yield from found

    def duplicate_count(self, cid: int, *, run_id: int | None = None) -> int:
        """Products whose picture another product has too; with `run_id`, of those that the run saw last."""
        shared = self._shared(cid).subquery()
        of_run = () if run_id is None else (_P.c.last_run == run_id,)
        query = (
            sa.select(sa.func.count())
            .select_from(_P)
            .join(shared, shared.c.content_hash == _P.c.content_hash)
            .where(_P.c.collection_id == cid, _P.c.deleted.is_(False), *of_run)
        )
        with self._read() as connection:
            return connection.execute(query).scalar_one()

    def _shared(self, cid: int) -> sa.Select[Any]:
        return (
            sa.select(_P.c.content_hash)
            .where(_P.c.collection_id == cid, _P.c.content_hash.is_not(None), _P.c.deleted.is_(False))
            .group_by(_P.c.content_hash)
            .having(sa.func.count() > 1)
        )
