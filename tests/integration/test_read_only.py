"""A store and an index that may not be written still answer; what would write says so in a sentence."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys

import pytest
import sqlalchemy as sa

import embedkit
from embedkit import plugins
from embedkit.errors import StoreError
from embedkit.metadata.store import open_store
from tests import plain_encoder
from tests.conftest import picture

MAY_NOT_WRITE = ["setpriv", "--bounding-set=-dac_override"] if os.geteuid() == 0 else []  # root may write anything

SERVANT = """
import contextlib, io, json, os, sys
import embedkit
from embedkit_cli.main import main
from tests import plain_encoder

plain_encoder.install()

def told(words):
    sys.argv, out, error = ["embedkit", *words], io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error), contextlib.suppress(SystemExit):
        main()
    return out.getvalue() + error.getvalue()

with embedkit.connect() as kit:
    there = kit.collection("products")
    for line in sys.stdin:
        os.environ["EMBEDKIT_STORE"], words = json.loads(line)
        answer = told(words) if words else [hit.key for hit in there.search(product="p05", where="price < 900", k=50)]
        print(json.dumps(answer), flush=True)
"""  # a program that holds a kit open and may not write: it is asked for hits, or to run a command


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a store, an index of 24 products and their catalog; where the settings say."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        plain_encoder.install(patch.setattr)
        patch.setenv("EMBEDKIT_STORE", f"sqlite:///{folder}/embedkit.db")
        patch.setenv("EMBEDKIT_BACKEND", f"faiss:///{folder}/faiss")
        (folder / "catalog").mkdir()
        for number in range(24):
            add(folder / "catalog", number)
        with embedkit.connect() as kit:
            kit.collection("products").ingest(folder / "catalog", encoder={"image": "plain"})
        yield folder
    plugins._table.cache_clear()


def add(catalog, number):
    """A product more in a catalog."""
    picture(number).save(catalog / f"{number:02}.png")
    row = {"key": f"p{number:02}", "image": f"{number:02}.png", "title": f"shoe {number}", "price": 5 * number}
    with (catalog / "products.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")


@pytest.fixture(scope="module")
def ask(home):
    """Asks the program `SERVANT`, which may not write to `home`; no words ask for hits."""
    shut(home)
    program = subprocess.Popen(
        [*MAY_NOT_WRITE, sys.executable, "-c", SERVANT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )

    def call(*words, store="embedkit.db"):
        program.stdin.write(json.dumps([f"sqlite:///{home}/{store}", [str(word) for word in words]]) + "\n")
        program.stdin.flush()
        return json.loads(program.stdout.readline())

    yield call
    program.stdin.close()
    program.wait()
    program.stdout.close()
    shut(home, False)


@pytest.fixture
def postgres_store(store_in_postgres):
    """URLs of one store: of who made it, and of a user with the right to read its tables."""
    open_store(store_in_postgres).close()
    made = sa.make_url(store_in_postgres)
    database = sa.create_engine(made)
    with database.begin() as connection:
        connection.execute(sa.text(f"CREATE ROLE {made.database}_reader LOGIN PASSWORD 'r'"))
        connection.execute(sa.text(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {made.database}_reader"))
    yield store_in_postgres, made.set(username=f"{made.database}_reader", password="r").render_as_string(False)
    with database.begin() as connection:
        connection.execute(sa.text(f"DROP OWNED BY {made.database}_reader"))
        connection.execute(sa.text(f"DROP ROLE {made.database}_reader"))
    database.dispose()


def shut(folder, shut=True):
    for path in (folder, *folder.rglob("*")):
        path.chmod(path.stat().st_mode & ~0o222 if shut else path.stat().st_mode | 0o200)


def test_a_store_that_may_not_be_written_is_searched_and_follows_who_may_write(home, ask):
    before = sorted(home.rglob("*"))
    assert len(ask()) == 23
    assert json.loads(ask("status", "-c", "products", "--json"))["products"] == 24
    hits = json.loads(ask("search", "--keywords", "shoe", "--where", "price < 15", "--json"))["hits"]
    assert {hit["key"] for hit in hits} == {"p00", "p01", "p02"}
    for reading in (
        ["search", "--image", home / "catalog" / "05.png"],
        ["get", "p05"],
        ["index", "show", "products"],
        ["failures"],
        ["verify"],
    ):
        assert "error" not in ask(*reading).lower(), reading
    for writing in (["ingest", home / "catalog"], ["delete", "p05"]):
        assert "can be read here and not written" in ask(*writing), writing
    assert "check who may read and write there" in ask("index", "build", "products", "hnsw")
    assert sorted(home.rglob("*")) == before

    shut(home, False)
    add(home / "catalog", 24)
    with embedkit.connect() as kit:
        kit.collection("products").ingest(home / "catalog")
        shut(home)
        assert len(ask()) == 24  # while the one that writes still has it open
        shut(home, False)
    shut(home)
    assert len(ask()) == 24


def test_what_must_be_written_before_it_can_be_read_is_said(home, ask):
    shut(home, False)
    for name, version in (("older", "0002"), ("newer", "9999")):
        shutil.copy(home / "embedkit.db", home / f"{name}.db")
        with opened(home / f"{name}.db") as database:
            database.execute("UPDATE alembic_version SET version_num = ?", [version])
    (home / "empty.db").touch()
    with opened(home / "embedkit.db") as writer:
        writer.execute("UPDATE product SET title = 'boot' WHERE key = 'p05'")
        for ending in ("", "-wal"):  # as a kill leaves them, and a copy that knows of no -shm
            shutil.copy(home / f"embedkit.db{ending}", home / f"killed.db{ending}")
    shut(home)
    said = {name: ask("status", store=f"{name}.db") for name in ("older", "newer", "empty", "killed")}
    assert "older embedkit (0002, not" in said["older"]
    assert "newer embedkit" in said["newer"]
    assert "has no tables yet" in said["empty"]
    assert "still in killed.db-wal" in said["killed"]


def opened(path):
    return contextlib.closing(sqlite3.connect(path, isolation_level=None))


def test_a_user_of_postgresql_who_may_only_select_searches(postgres_store, home, monkeypatch):
    url, reader = postgres_store
    shut(home, False)
    monkeypatch.setenv("EMBEDKIT_STORE", url)
    with embedkit.connect() as kit:
        kit.collection("more").ingest(home / "catalog", encoder={"image": "plain"})
    monkeypatch.setenv("EMBEDKIT_STORE", reader)
    count = len(list((home / "catalog").glob("*.png")))
    with embedkit.connect() as kit:
        more = kit.collection("more")
        assert len(more.search(product="p05", where="price < 900", k=50)) == count - 1
        assert {hit.key for hit in more.search(keywords="shoe", where="price < 15")} == {"p00", "p01", "p02"}
        assert more.status().products == count
        assert more.verify().ok
        for writing in (lambda: more.ingest(home / "catalog"), lambda: more.delete("p05")):
            with pytest.raises(StoreError, match="does not let this user do that: permission denied for table"):
                writing()
        assert more.count() == count


def test_an_older_store_in_postgresql_is_not_migrated_by_who_may_only_select(postgres_store):
    url, reader = postgres_store
    database = sa.create_engine(url)
    with database.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '0002'"))
    database.dispose()
    with pytest.raises(StoreError, match=r"older embedkit \(0002, not .* embedkit status"):
        open_store(reader)
