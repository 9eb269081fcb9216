"""The index of a collection: built, shown, tuned, advised on; parameters of a search, and their command line."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
from typer.testing import CliRunner

import embedkit
from embedkit import IndexSpec, Question, SearchParams
from embedkit.backends.open import capabilities
from embedkit.codes import hamming
from embedkit.errors import BadInput, ConfigError, UnsupportedByBackend
from embedkit.search import measure
from embedkit.search.rules import by_rule, bytes_of, parse_bytes
from embedkit.search.state import keep_knobs
from embedkit_cli.app import app
from tests.vectors import clustered, clustered_codes, filled

COUNT = 1_500
FAISS = capabilities("faiss:///x")


@pytest.fixture(scope="module")
def vectors():
    return clustered(COUNT)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("indexes")


@pytest.fixture(scope="module")
def url(home):
    return f"faiss:///{home}/faiss"


@pytest.fixture(scope="module")
def kit(home, url):
    with embedkit.connect(backend=url, home=home / "home") as opened:
        yield opened


@pytest.fixture(scope="module")
def filled_once(kit, vectors):
    return filled(kit, vectors)


@pytest.fixture
def products(filled_once):
    """The same vectors for every test, with a flat index at first."""
    filled_once.build_index("flat")
    return filled_once


@pytest.fixture
def run(products, url, home, monkeypatch):
    monkeypatch.setenv("EMBEDKIT_HOME", str(home / "home"))

    def call(*arguments, code=0):
        done = CliRunner().invoke(app, [*map(str, arguments), "--backend", url])
        assert done.exit_code == code, done.output
        return done

    return call


def recall_of(products, vectors, **params):
    """Share of the ten nearest that searches by fifty of the vectors find."""
    right = np.argsort(-(vectors[:50] @ vectors.T), axis=1)[:, :10]
    found = [[int(hit.key[1:]) for hit in products.search(vector=v, k=10, **params)] for v in vectors[:50]]
    return np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, right.tolist(), strict=True)])


def test_lite_builds_as_many_lists_as_it_is_told(lite_url, tmp_path, vectors):
    with embedkit.connect(backend=lite_url, home=tmp_path / "home") as kit:
        there = filled(kit, vectors)
        assert there.build_index("ivf(nlist=4)").spec == "ivf(nlist=4)"
        assert recall_of(there, vectors, params={"nprobe": 1}) < 0.99
        assert recall_of(there, vectors, params={"nprobe": 4}) == 1.0


def test_an_index_is_built_shown_and_searched_with_parameters_of_the_call(products, vectors):
    assert products.index().heeds == ()
    state = products.build_index("ivf(nlist=32) + pq(m=8, bits=5) + refine(flat)")
    assert (state.spec, state.vectors, state.covered) == (
        "ivf(nlist=32) + pq(m=8, bits=5) + refine(flat)",
        COUNT,
        COUNT,
    )
    assert state.heeds == ("nprobe", "k_factor")
    assert state.bytes
    few = recall_of(products, vectors, params={"nprobe": 1, "k_factor": 1})
    many = recall_of(products, vectors, params=SearchParams(nprobe=32, k_factor=50))
    assert few < 0.8
    assert many > 0.99
    again = embedkit.connect(backend=products._resources.backend_url, home=products._resources.settings.home)
    assert again.collection("products").index() == state
    again.close()


def test_a_parameter_that_means_nothing_to_the_index_is_an_error(products, vectors):
    with pytest.raises(BadInput, match=r"nprobe means nothing to the index 'flat'; it is searched exactly"):
        products.search(vector=vectors[0], params={"nprobe": 3})
    products.build_index(IndexSpec("hnsw"))
    for params, message in (
        ({"nprobe": 3}, "nprobe means nothing to the index 'hnsw'; it heeds ef"),
        ({"eff": 3}, "no parameter 'eff'; did you mean ef"),
        (SearchParams(ef=-1), "ef=-1 .* is not a whole number"),
        ("ef=3", "a mapping such as"),
    ):
        with pytest.raises(BadInput, match=message):
            products.search(vector=vectors[0], params=params)


def test_an_index_that_cannot_be_leaves_the_one_there_is(products):
    products.build_index("hnsw(m=8)")
    for spec, error in (
        ("hsnw", UnsupportedByBackend),
        ("diskann", UnsupportedByBackend),
        ("ivf(nlist=9000)", ConfigError),
        ("ivf + pq(m=7)", ConfigError),
        ("pq(m=8, bits=11)", ConfigError),
    ):
        with pytest.raises(error):
            products.build_index(spec)
        assert products.index().spec == "hnsw(m=8)"


def test_tuning_finds_the_cheapest_parameters_and_searches_ask_with_them(products, vectors):
    products.build_index("ivf(nlist=64)")
    tried = products.tune(recall=0.9, queries=200, keep=False)
    assert products.index().asks_with == {}
    assert [point.recall for point in tried.points] == sorted(point.recall for point in tried.points)
    found = products.tune(recall=0.9, queries=200)
    assert found.chosen is not None
    assert found.chosen.recall >= 0.9
    assert all(point.qps <= found.chosen.qps for point in found.points if point.recall >= 0.9)
    assert products.index().asks_with == found.chosen.params
    assert recall_of(products, vectors) == pytest.approx(recall_of(products, vectors, params=found.chosen.params))
    assert recall_of(products, vectors, params={"nprobe": 1}) < recall_of(products, vectors)
    products.build_index("hnsw(m=8)")  # to which nprobe means nothing
    assert products.index().asks_with == {}


@pytest.fixture(scope="module")
def twins(kit):
    """Every vector four times: most k-th places are tied."""
    return filled(kit, np.tile(clustered(75, seed=3), (4, 1)), name="twins")


def test_of_equal_vectors_any_will_do_so_who_compares_all_finds_all(twins, monkeypatch):
    monkeypatch.setattr(measure, "_ROUNDS", 1)
    advice = twins.advise(queries=60)
    assert next(one for one in advice.specs if one.spec == "flat").recall == 1
    twins.build_index("ivf(nlist=8)")
    points = {point.params["nprobe"]: point.recall for point in twins.tune(recall=1, queries=300, keep=False).points}
    assert points[1] < 0.999
    assert points[max(points)] == 1


def by_hand(kit, name, vectors, scores, params):
    """Every row asks the backend: the share of its ten nearest, by the `scores` of each pair, that it finds."""
    backend, count = kit._resources.backend, len(vectors)
    ids = np.sort(np.concatenate(list(backend.scan_ids(name))))
    tenth = np.sort(np.where(np.eye(count, dtype=bool), -np.inf, scores), axis=1)[:, -10]
    found = backend.search(name, vectors, 11, None, SearchParams(**params)).ids
    found = np.where(found < 0, -1, np.searchsorted(ids, found))
    hits = [[place for place in row if place not in (me, -1)][:10] for me, row in enumerate(found)]
    return sum((scores[me, row] > tenth[me] - 1e-6).sum() for me, row in enumerate(hits)) / (10 * count)


def test_codes_that_find_others_are_not_flattered(twins, kit, monkeypatch):
    monkeypatch.setattr(measure, "_ROUNDS", 1)
    twins.build_index("pq(m=4, bits=2) + refine(flat)")
    vectors = np.tile(clustered(75, seed=3), (4, 1))
    scores = vectors.astype(np.float64) @ vectors.T
    for point in twins.tune(queries=300, keep=False).points[:3]:
        assert point.recall == pytest.approx(by_hand(kit, "twins_v1_image", vectors, scores, point.params))
        assert 0.3 < point.recall < 1


@pytest.fixture(scope="module")
def coded(kit):
    return filled(kit, clustered_codes(300), name="coded")


@pytest.mark.parametrize(("spec", "knob"), [("ivf(nlist=32)", "nprobe"), ("hnsw(m=4, ef_construction=8)", "ef")])
def test_indexes_of_codes_are_tuned_by_bits(coded, kit, spec, knob, monkeypatch):
    monkeypatch.setattr(measure, "_ROUNDS", 1)
    coded.build_index(spec)
    tuning = coded.tune(recall=0.99, queries=300)
    codes = clustered_codes(300)
    scores = -hamming(codes, codes)
    for point in tuning.points:
        assert list(point.params) == [knob]
        assert point.recall == pytest.approx(by_hand(kit, "coded_v1_image", codes, scores, point.params))
    assert tuning.points[0].recall < 0.99 <= tuning.chosen.recall
    assert coded.index().asks_with == tuning.chosen.params


def test_a_search_of_all_codes_finds_all_though_most_last_places_are_tied(coded):
    coded.build_index("ivf(nlist=4)")
    assert max(point.recall for point in coded.tune(recall=1, queries=200, keep=False).points) == 1


def test_codes_without_anything_to_tune_say_so(coded):
    for spec in ("flat", "multihash(tables=4)"):
        coded.build_index(spec)
        with pytest.raises(
            BadInput, match=r"'image' of 'coded' is searched exactly .*: embedkit index build coded 'hnsw'"
        ):
            coded.tune()


def test_what_cannot_be_tuned_is_said(products):
    with pytest.raises(BadInput, match=r"searched exactly .* embedkit index build products"):
        products.tune()
    with pytest.raises(BadInput, match=r"recall=2 is not a share"):
        products.tune(recall=2)
    products.build_index("hnsw(m=8)")
    with pytest.raises(BadInput, match=r"vectors in 'image', which have fewer than k=9000 others; ask for fewer"):
        products.tune(k=9_000)


@pytest.mark.parametrize("place", ["faiss:///{}/f", "milvus:///{}/lite.db"])
def test_what_another_process_builds_and_tunes_is_asked_for_within_a_second(tmp_path, place):
    """Two kits share nothing but the store and the vectors, as two processes do."""
    url, vectors = place.format(tmp_path), clustered(300)
    with embedkit.connect(backend=url, home=tmp_path) as kit, embedkit.connect(backend=url, home=tmp_path) as other:
        here, there = filled(kit, vectors), other.collection("products")

        def asked(products, params=None):
            found = products.search_many([Question(vector=vector) for vector in vectors[:30]], params=params)
            return [[hit.key for hit in hits] for hits in found]

        whole = asked(here)
        there.build_index("ivf(nlist=64)")
        row = there._fresh()
        keep_knobs(other._resources.store, row, row.views[0], {"nprobe": 1})
        there._row = None
        few = asked(there)
        assert few == asked(there, {"nprobe": 1}) != whole
        time.sleep(1.01)
        assert asked(here) == few
        assert here.index().asks_with == {"nprobe": 1}


def test_what_was_tuned_for_an_index_that_is_gone_is_not_kept(products):
    products.build_index("ivf(nlist=16)")
    row = products._fresh()
    products.build_index("hnsw(m=8)")
    with pytest.raises(
        BadInput, match=r"no longer has the index 'ivf\(nlist=16\)' that was tuned; .* index tune products"
    ):
        keep_knobs(products._resources.store, row, row.views[0], {"nprobe": 4})
    assert (products.index().spec, products.index().asks_with) == ("hnsw(m=8)", {})


def test_measured_advice_agrees_with_trying_every_setting(products, vectors, monkeypatch):
    monkeypatch.setattr(measure, "_ROUNDS", 1)
    told = []
    advice = products.advise(recall=0.9, sample=1_200, queries=100, progress=told.append)
    assert advice.measured + advice.queries == 1_300
    assert not advice.missing
    assert [one.seen for one in told] == list(range(len(advice.specs) + 1))
    assert {one.note for one in told[:-1]} == {one.spec for one in advice.specs}
    fitting = [one for one in advice.specs if not one.misses]
    assert advice.chosen is fitting[0]
    assert all(one.recall >= 0.9 for one in fitting)
    assert [one.qps_at_n for one in fitting] == sorted((one.qps_at_n for one in fitting), reverse=True)
    flat = next(one for one in advice.specs if one.spec == "flat")
    assert flat.recall == 1
    assert flat.bytes == COUNT * 4 * vectors.shape[1]
    assert not [name for name in products._resources.backend.list() if name.startswith("advice_")]


@pytest.mark.parametrize(
    "text",
    [
        "hnsw(m=16)",
        "hnsw(m=32) + sq8",
        "ivf(nlist=32)",
        "ivf(nlist=32) + sq8",
        "ivf(nlist=32) + pq4fs(m=16)",
        "ivf + pq(m=8, bits=5)",
    ],
)
def test_the_estimate_of_memory_is_that_of_the_index(products, kit, text):
    backend = kit._resources.backend
    backend.build_index("products_v1_image", IndexSpec.parse(text))
    estimated = bytes_of(IndexSpec.parse(text.replace(", bits=5", "")), COUNT, 32)
    assert backend.index_use("products_v1_image").bytes == pytest.approx(estimated, rel=0.25)


def test_the_rule_puts_what_fits_first():
    free = by_rule(1_000_000, 128, FAISS)
    assert free.chosen.spec == "hnsw(m=16)"
    tight = by_rule(1_000_000, 128, FAISS, memory=parse_bytes("64MB"))
    assert "opq" in tight.chosen.spec or "rabitq" in tight.chosen.spec
    assert tight.chosen.bytes <= 64_000_000
    assert next(one for one in tight.specs if one.spec == "hnsw(m=16)").misses == "takes 0.66 GB of the 0.06 GB"
    assert by_rule(500, 128, FAISS, recall=1).chosen.spec == "flat"
    assert by_rule(10**9, 96, FAISS, memory=parse_bytes("60GB"), recall=0.9).chosen.spec.startswith("opq(m=24) + imi")
    assert by_rule(1_000_000, 128, FAISS, memory=1_000).chosen is None
    slow = by_rule(1_000_000, 128, FAISS, latency=1.0)
    assert next(one for one in slow.specs if one.spec == "flat").misses.endswith("of the 1 ms")
    assert {IndexSpec.parse(one.spec).shape for one in by_rule(10**6, 64, capabilities("milvus:///x.db")).specs} == {
        "flat",
        "hnsw",
        "hnsw + sq8",
        "ivf",
        "ivf + sq8",
    }


@pytest.mark.parametrize(("text", "count"), [("2GB", 2 * 10**9), ("512 MiB", 512 * 2**20), ("1.5k", 1_500), (7, 7)])
def test_amounts_of_memory_are_read(text, count):
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "much", "2XB", "-1GB", "0"])
def test_what_is_no_amount_of_memory_is_said(text):
    with pytest.raises(BadInput, match="no amount of memory; write for example 2GB"):
        parse_bytes(text)


def test_the_command_line_builds_shows_tunes_and_searches(run):
    built = json.loads(run("index", "build", "products", "ivf(nlist=16)", "--json").stdout)
    assert built["covered"] == COUNT
    assert "ivf(nlist=16)" in run("index", "show", "products").stdout
    tuned = json.loads(run("index", "tune", "products", "--recall", "0.8", "--queries", "50", "--json").stdout)
    shown = json.loads(run("index", "show", "products", "--json").stdout)
    assert shown["asks_with"] == tuned["chosen"]["params"]
    hits = json.loads(run("search", "--product", "p3", "--set", "nprobe=16", "-k", "3", "--json").stdout)["hits"]
    assert len(hits) == 3
    assert "chosen" in run("index", "tune", "products", "--recall", "0.5", "--queries", "50", "--dry-run").stdout
    for arguments in (("search", "--product", "p3", "--set", "ef=16"), ("index", "build", "products", "ivff")):
        assert run(*arguments, code=1).exception.__class__.__module__ == "embedkit.errors"
    run("search", "--product", "p3", "--set", "ef", code=2)


def test_the_command_line_advises_by_rule_and_by_measuring(run, tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "_ROUNDS", 1)
    ruled = run("advise", "--n", "1000000", "--dim", "128", "--recall", "0.95", "--memory", "2GB").output
    assert 'index = "hnsw(m=16)" in embedkit.toml' in ruled
    page = tmp_path / "out" / "chart.html"
    shown = run("advise", "--recall", "0.8", "--sample", "600", "--queries", "50", "--html", page).output
    assert "Build it with: embedkit index build --backend" in shown
    assert page.read_text().count("<polyline") == shown.count(" MB") + shown.count(" kB")
    run("advise", "--n", "5", code=2)
    run("advise", "--n", "5", "--dim", "8", "--codes", code=2)
    run("advise", "--codes", "--memory", "2GB", code=2)
