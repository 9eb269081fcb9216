"""`embedkit bench ann`: indexes in several backends over one data set, row by row, and a page."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

import embedkit
from embedkit.errors import BadInput, ConfigError
from embedkit_cli.app import app
from embedkit_cli.commands.bench import page_as_it_comes


@pytest.fixture
def dataset(tmp_path):
    """2,000 vectors, some of them twice, and 50 queries."""
    rng = np.random.default_rng(3)
    rows = rng.standard_normal((2_050, 16))
    rows[100:1_000:10] = rows[1_100:2_000:10]
    np.save(tmp_path / "base.npy", rows[50:].astype(np.float32))
    np.save(tmp_path / "query.npy", rows[:50].astype(np.float32))
    return tmp_path / "base.npy"


def bench(kit, dataset, **given):
    return kit.bench_ann(dataset, **{"queries": dataset.with_name("query.npy"), "ks": (1, 10), **given})


def test_an_exact_index_finds_all_and_others_come_near(kit, dataset, tmp_path):
    found = bench(kit, dataset, out=tmp_path / "out", specs=["flat", "hnsw(m=16)", "ivf(nlist=20) + sq8"])
    flat, graph, lists = found.rows
    assert flat.points[0].recalls == {1: 1.0, 10: 1.0}
    assert graph.cheapest(0.95, 10).recalls[10] >= 0.95
    assert graph.bytes > 0
    few, many = lists.points[0], lists.points[-1]
    assert few.params["nprobe"] < many.params["nprobe"]
    assert few.recalls[10] < 0.9 < 0.99 < many.recalls[10]
    assert all(point.qps[10] > 0 and 0 < point.p50 <= point.p99 for row in found.rows for point in row.points)


def test_backends_stand_side_by_side_and_leave_nothing_behind(kit, dataset, tmp_path, lite_url):
    urls = [f"faiss:///{tmp_path}/faiss", lite_url]
    found = bench(kit, dataset, out=tmp_path / "out", specs=["flat", "hnsw(m=8) + fp16"], backends=urls)
    of_faiss, of_milvus = (found.row(url, "flat") for url in urls)
    assert of_faiss.points[0].recalls == of_milvus.points[0].recalls == {1: 1.0, 10: 1.0}
    assert found.row(urls[0], "hnsw(m=8) + fp16").points
    assert "hnsw" in found.row(lite_url, "hnsw(m=8) + fp16").refused
    for url in urls:
        with embedkit.connect(backend=url, home=tmp_path / "home") as other:
            assert other._resources.backend.list() == ()


class Stopped(BaseException):
    """As Ctrl-C is: nobody catches it."""


def test_true_neighbours_are_kept_whole_or_not_at_all(kit, dataset, tmp_path, monkeypatch):
    def cut(file, _):
        with file if hasattr(file, "write") else open(file, "wb") as begun:
            begun.write(b"\x93NUMPY")
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(np, "save", cut)
        with pytest.raises(Stopped):
            bench(kit, dataset, out=tmp_path / "out", specs=["flat"])
    found = bench(kit, dataset, out=tmp_path / "out", specs=["flat"])
    assert found.rows[0].points[0].recalls == {1: 1.0, 10: 1.0}


def test_a_run_that_is_stopped_goes_on_where_it_was(kit, dataset, tmp_path):
    def stop(moment):
        if moment.seen == 1:
            raise Stopped

    given = {"out": tmp_path / "out", "specs": ["flat", "hnsw(m=8)", "nosuch"]}
    with pytest.raises(Stopped):
        bench(kit, dataset, progress=stop, **given)
    kept = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [row["spec"] for row in kept["rows"]] == ["flat"]

    notes = []
    found = bench(kit, dataset, progress=lambda moment: notes.append(moment.note), **given)
    assert [row.spec for row in found.rows] == ["flat", "hnsw(m=8)", "nosuch"]
    assert found.filled == kept["filled"]  # nothing was written again
    assert not any(note.startswith("flat:") for note in notes)
    assert "'nosuch'" in found.rows[2].refused


def test_another_set_does_not_mix_with_what_is_kept(kit, dataset, tmp_path):
    bench(kit, dataset, out=tmp_path / "out", specs=["flat"])
    with pytest.raises(ConfigError, match="holds results of 'base' with 2,000 vectors, 50 queries, l2"):
        bench(kit, dataset, out=tmp_path / "out", specs=["flat"], size=500)
    np.save(tmp_path / "truth.npy", np.zeros((50, 10), np.int32))
    with pytest.raises(ConfigError, match="or have other true neighbours"):
        bench(kit, dataset, out=tmp_path / "out", specs=["flat"], truth=tmp_path / "truth.npy")
    (tmp_path / "out" / "results.json").write_text("[]")
    with pytest.raises(ConfigError, match="is no result of embedkit bench ann"):
        bench(kit, dataset, out=tmp_path / "out", specs=["flat"])


def test_more_neighbours_than_are_told_or_there_are_refused(kit, dataset, tmp_path):
    np.save(tmp_path / "truth.npy", np.zeros((50, 5), np.int32))
    with pytest.raises(BadInput, match="tells the 5 nearest of each query, and k=10 is wanted"):
        bench(kit, dataset, out=tmp_path / "out", truth=tmp_path / "truth.npy")
    with pytest.raises(BadInput, match="k=0: give numbers of 1 to 2,000"):
        bench(kit, dataset, out=tmp_path / "out", ks=(0,))


def test_neighbours_of_other_vectors_or_of_another_metric_are_refused(kit, dataset, tmp_path):
    """Else an index would be held to rows that are farther, and every figure were 1."""
    base, queries = np.load(dataset), np.load(dataset.with_name("query.npy"))
    apart = np.square(queries[:, None] - base).sum(axis=2)
    np.save(tmp_path / "right.npy", np.argsort(apart, axis=1)[:, :10])
    np.save(tmp_path / "of_half.npy", np.argsort(apart[:, :1_000], axis=1)[:, :10])
    given = {"specs": ["flat"], "truth": tmp_path / "right.npy"}
    assert bench(kit, dataset, out=tmp_path / "out", **given).rows[0].points[0].recalls == {1: 1.0, 10: 1.0}
    with pytest.raises(BadInput, match=r"are not those of its vectors by l2: \d+% of 10 queries' are"):
        bench(kit, dataset, out=tmp_path / "half", **{**given, "truth": tmp_path / "of_half.npy"})
    with pytest.raises(BadInput, match="are not those of its vectors by ip"):
        bench(kit, dataset, out=tmp_path / "ip", metric="ip", **given)


def test_true_neighbours_of_which_a_full_disk_kept_half_are_found_anew(kit, dataset, tmp_path):
    bench(kit, dataset, out=tmp_path / "out", specs=["flat"])
    (kept,) = (tmp_path / "out").glob("truth-*.npy")
    kept.write_bytes(kept.read_bytes()[:1_000])
    found = bench(kit, dataset, out=tmp_path / "out", specs=["flat", "hnsw(m=16)"])
    assert found.rows[1].points[-1].recalls[10] > 0.95


def test_the_page_tells_what_was_measured_until_it_was_stopped(kit, dataset, tmp_path):
    write = page_as_it_comes(tmp_path / "out", None, None)

    def stop(moment):
        write(moment)
        if moment.seen == 1:
            raise Stopped

    with pytest.raises(Stopped):
        bench(kit, dataset, out=tmp_path / "out", specs=["flat", "hnsw(m=8)"], progress=stop)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<td>flat</td>" in page
    assert "hnsw" not in page


def test_the_command_writes_a_page(dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = [
        "bench",
        "ann",
        str(dataset),
        "--queries",
        "query.npy",
        "-k",
        "10",
        "--spec",
        "flat",
        "--spec",
        "diskann",
    ]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 3, done.output  # some could not be built
    assert "1.000" in done.output
    assert "not built: diskann" in done.output
    page = (tmp_path / "bench" / "base" / "report.html").read_text()
    assert "2,000 vectors of 16 numbers, l2" in page
    assert "<svg" in page
    assert "<td>flat</td>" in page
    assert "diskann" in page

    machine = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    assert machine["rows"][0]["points"][0]["recalls"] == {"10": 1.0}
    assert CliRunner().invoke(app, [*arguments[:-4], "--spec", "hnws", "--out", "other"]).exit_code == 1
    wrong = CliRunner().invoke(app, [*arguments, "--metric", "hamming"])
    assert wrong.exit_code == 2
    assert "known: l2, ip, cosine" in wrong.output
