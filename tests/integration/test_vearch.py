"""Vearch, over the real Gamma engine: what its users meet, beyond the contract."""

from __future__ import annotations

import http.client
import subprocess
import sys
import threading
import uuid
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from embedkit.backends.contract import BackendOptions, CollectionSpec, IndexSpec
from embedkit.backends.open import open_backend
from embedkit.backends.vearch import names, reading, searching
from embedkit.errors import BackendUnavailable, CollectionNotFound, ConfigError, Terminal, UnsupportedByBackend
from embedkit.filters import parse_filter
from embedkit.testing.compare import assert_same_answer
from embedkit.testing.rows import columns_of
from tests.services.vearch import DB, vearch_server

DIM = 16
PASSWORD = "se:cr/et"


@pytest.fixture
def backend(clean_vearch_url):
    opened = open_backend(clean_vearch_url)
    yield opened
    opened.close()


@pytest.fixture
def oracle():
    opened = open_backend("oracle://vearch")
    yield opened
    opened.close()


@pytest.fixture
def name():
    return f"v_{uuid.uuid4().hex[:10]}"


def vectors(count, seed=0):
    return np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)


def fill(backends, name, count, columns=None, index="flat"):
    for one in backends:
        spec = IndexSpec.parse(index)
        able = spec.shape in one.capabilities.index_families
        one.create(CollectionSpec(name, DIM, "l2", index=spec if able else IndexSpec()))
        one.upsert(name, np.arange(count), vectors(count), columns or columns_of(count))


# -- who is let in, and what others are told -----------------------------------------------------


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    with vearch_server(tmp_path_factory.mktemp("guarded"), password=PASSWORD) as server:
        yield server


def test_the_right_password_lets_one_in_by_url_or_by_settings(guarded):
    for url, options in (
        (guarded.url, BackendOptions(password=PASSWORD)),
        (guarded.url, BackendOptions(user="root", token=PASSWORD)),
        (guarded.url.replace("://", "://root:se%3Acr%2Fet@"), BackendOptions()),
    ):
        backend = open_backend(url, options)
        assert backend.list() == ()
        assert "cr" not in backend.url.replace("localhost", "")
        backend.close()


@pytest.mark.parametrize(
    ("login", "database", "why"),
    [
        ("root:wr0ng", "shop", "password"),
        ("eve:wr0ng", "shop", "user eve"),
        ("", "shop", "auth header is empty"),
        ("root:se%3Acr%2Fet", "nowhere", "no database 'nowhere' .it has: shop.*curl -X POST"),
    ],
)
def test_others_are_told_why_not_and_never_shown_a_password(guarded, login, database, why):
    url = f"vearch://{login}{'@' if login else ''}127.0.0.1:{guarded.port}/{database}"
    with pytest.raises(ConfigError, match=why) as caught:
        open_backend(url)
    assert "wr0ng" not in str(caught.value)
    assert "cr/et" not in str(caught.value)


@pytest.mark.parametrize("url", ["vearch:///shop", "vearch://host:9001", "vearch://host:9001/a/b", "vearch://h/db?x=1"])
def test_a_url_that_names_no_cluster_or_no_database_is_refused(url):
    with pytest.raises(ConfigError, match="vearch"):
        open_backend(url)


def test_a_host_that_does_not_answer_is_named_without_the_password():
    with pytest.raises(BackendUnavailable, match=r"root:\*\*\*@127.0.0.1:1/shop does not answer .*refused") as caught:
        open_backend("vearch://root:hidden@127.0.0.1:1/shop")
    assert "hidden" not in str(caught.value)


def test_the_client_is_imported_without_what_its_import_does(tmp_path):
    """pyvearch sets up logging for the whole process, and writes err.log into the working directory."""
    code = """
import io, logging
logging.basicConfig(stream=io.StringIO(), level=logging.INFO)
handlers = list(logging.getLogger().handlers)
from embedkit.backends.vearch.connect import _rest_client
_rest_client()
assert logging.getLogger().handlers == handlers and not logging.getLogger("vearch").handlers
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.iterdir())


# -- answers that get lost, and servers that say what is not so -----------------------------------


@contextmanager
def unreliable(port, *, lost):
    """In front of a router: does what is asked, and of the first `lost` writes of documents loses the answer."""
    left = [lost]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            with closing(http.client.HTTPConnection("127.0.0.1", port)) as behind:
                behind.request(self.command, self.path, body, {"Content-Type": "application/json"})
                answer = behind.getresponse()
                payload = answer.read()
            if self.path == "/document/upsert" and left[0] > 0:
                left[0] -= 1
                self.close_connection = True
                return
            self.send_response(answer.status)
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        do_GET = do_POST = do_PUT = do_DELETE = forward

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_port, left
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_write_whose_answer_is_lost_is_repeated_and_doubles_nothing(vearch_process, name):
    with unreliable(vearch_process.port, lost=2) as (front, left):
        behind = open_backend(f"vearch://127.0.0.1:{front}/{DB}")
        fill([behind], name, 20)
        assert left == [0]
        assert behind.count(name) == 20
        behind.drop(name)
        behind.close()


def test_an_alias_that_the_server_only_claims_to_switch_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(names, "_PAUSE", 0.01)
    with vearch_server(tmp_path / "lossy", "--lose-alias-updates") as server:
        backend = open_backend(server.url)
        for number in (1, 2):
            backend.create(CollectionSpec(f"c{number}", DIM))
        backend.switch_alias("live", "c1")
        with pytest.raises(BackendUnavailable, match="'shop__live' was switched to 'c2', yet it leads to 'c1'"):
            backend.switch_alias("live", "c2")
        assert backend.describe("live").name == "c1"
        backend.close()


# -- partitions, pages, names --------------------------------------------------------------------


def test_a_collection_over_two_partitions_answers_as_one(vearch_url, oracle, name, monkeypatch):
    monkeypatch.setattr(reading, "_MOST", 7)
    backend = open_backend(vearch_url, BackendOptions(partitions=2))
    try:
        fill([backend, oracle], name, 60)
        backend.upsert(name, np.array([2**62, 5]), vectors(2, 1), columns_of(2))
        oracle.upsert(name, np.array([2**62, 5]), vectors(2, 1), columns_of(2))
        assert backend._client.space(name, name)["partition_num"] == 2
        scanned = [row for page in backend.scan_ids(name, 5) for row in page.tolist()]
        assert sorted(scanned) == [*range(60), 2**62]
        for where in (None, parse_filter("price > 1 and not brand == 'a'")):
            assert_same_answer(backend.search(name, vectors(5), 20, where), oracle.search(name, vectors(5), 20, where))
        assert backend.count(name) == 61
    finally:
        backend.drop(name)
        backend.close()


def test_more_replicas_than_servers_are_refused_in_the_servers_words(vearch_process, name):
    backend = open_backend(vearch_process.url, BackendOptions(replicas=3))
    with pytest.raises(Terminal, match="need replica 3 but only has 1"):
        backend.create(CollectionSpec(name, DIM))
    backend.close()


@pytest.mark.parametrize("bad", ["_hidden", "shoes__i0123abcd"])
def test_names_that_vearch_does_not_take_are_refused(backend, bad):
    with pytest.raises(ConfigError, match=bad):
        backend.create(CollectionSpec(bad, DIM))


def test_a_space_of_another_program_is_left_alone(vearch_url, backend, name):
    from vearch.schema.field import Field
    from vearch.schema.index import FlatIndex
    from vearch.schema.space import SpaceSchema

    theirs = [Field("theirs", "vector", FlatIndex("flat", "L2"), dimension=4)]
    backend._client.create_space(SpaceSchema(name, theirs, replica_num=1), name)
    with pytest.raises(Terminal, match=f"'{name}' was not made by embedkit"):
        backend.count(name)


# -- filters and indexes -------------------------------------------------------------------------


@pytest.mark.parametrize("checked", [4_096, 8])
def test_a_filter_that_few_rows_pass_finds_them_all(backend, oracle, name, monkeypatch, checked):
    """More hits are asked for while some fail; where that does not pay, the rows are read and the ids are given."""
    monkeypatch.setattr(searching, "_CHECKED", checked)
    monkeypatch.setattr(searching, "_FIRST", 4)
    monkeypatch.setattr(searching, "_AMONG", 2)
    columns = [{"price": row, "title": f"thing {row}", **({"x" * 9: "y"} if row % 2 else {})} for row in range(80)]
    columns[7] = {f"attribute {number}": number for number in range(100)} | {"price": 1, "title": "odd"}
    fill([backend, oracle], name, 80, columns)
    for text in ("price < 4", "title like '%7'", "price > 60 and xxxxxxxxx == 'y'", "not price < 75", "title == 'odd'"):
        where = parse_filter(text)
        assert_same_answer(backend.search(name, vectors(3), 4, where), oracle.search(name, vectors(3), 4, where))


def test_an_index_that_is_not_trained_yet_answers_exactly(backend, oracle, name):
    fill([backend], name, 160, index="ivf(nlist=4)")
    assert backend.search(name, vectors(1), 1).ids.tolist() == [[0]]
    backend.drop(name)  # what was trained is forgotten with it
    fill([backend, oracle], name, 40, index="ivf(nlist=4)")
    for where in (None, parse_filter("price > 1")):
        assert_same_answer(backend.search(name, vectors(3), 9, where), oracle.search(name, vectors(3), 9, where))


def test_an_index_that_the_cluster_lacks_is_refused_and_the_old_one_stays(vearch_process, name):
    backend = open_backend(vearch_process.url)
    fill([backend], name, 9)
    with pytest.raises(UnsupportedByBackend, match=r"nearest it has is 'ivf'.*index type not support: IVFRABITQ"):
        backend.build_index(name, IndexSpec.parse("ivf(nlist=4) + rabitq"))
    assert backend.describe(name).index == IndexSpec()
    assert backend.search(name, vectors(1), 1).ids.tolist() == [[0]]
    backend.drop(name)
    backend.close()


def test_product_quantisation_finds_most(backend, oracle, name):
    fill([backend, oracle], name, 300)
    with pytest.raises(ConfigError, match=r"m=5 .* does not cut the 16 dimensions"):
        backend.build_index(name, IndexSpec.parse("ivf(nlist=4) + pq(m=5)"))
    backend.build_index(name, IndexSpec.parse("ivf(nlist=4) + pq(m=8)"))
    assert backend.describe(name).index == IndexSpec.parse("ivf(nlist=4) + pq(m=8)")
    found, right = (one.search(name, vectors(10), 10).ids.tolist() for one in (backend, oracle))
    assert np.mean([len(set(a) & set(b)) for a, b in zip(found, right, strict=True)]) >= 9


def test_a_new_index_keeps_name_rows_and_aliases_also_for_others(vearch_url, backend, name):
    other, alias = open_backend(vearch_url), f"{name}_live"
    fill([backend], name, 30)
    backend.switch_alias(alias, name)
    assert other.search(name, vectors(1), 1).ids.tolist() == [[0]]
    left = backend._names.rebuilt(name)
    backend._client.create_space(backend._schema(backend.describe(name), left), left)  # as a killed build leaves it
    for text in ("hnsw(m=8)", "flat"):
        backend.build_index(name, IndexSpec.parse(text))
        assert backend.list().count(name) == 1
        assert len(backend._names.spaces_of(name)) == 1
        for one in (backend, other):
            assert one.search(name, vectors(1), 1).ids.tolist() == [[0]]
            assert one.search(alias, vectors(1), 1).ids.tolist() == [[0]]
            assert one.describe(alias).name == name
    assert backend.fetch(name, np.array([3])).columns == (columns_of(4)[3],)
    (space,) = backend._names.spaces_of(name)
    backend._client.create_space(backend._schema(backend.describe(name), left), left)
    backend.build_index(name, IndexSpec())
    assert backend._names.spaces_of(name) == [space], "it is made so already"
    backend.delete(name, np.arange(4))
    backend.build_index(name, IndexSpec())
    assert backend._names.spaces_of(name) != [space], "a tenth of the rows that were written is dead"
    assert backend.count(name) == 26
    backend.drop(name)
    for gone in (name, alias):
        with pytest.raises(CollectionNotFound):
            other.count(gone)
    other.close()
