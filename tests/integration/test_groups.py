"""Near-duplicates and clusters of a collection, against plain NumPy and networks that are joined by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.metrics import normalized_mutual_info_score
from typer.testing import CliRunner

import embedkit
from embedkit.errors import BadInput
from embedkit.search import duplicates
from embedkit.search.duplicates import components
from embedkit_cli.app import app
from embedkit_cli.commands import groups
from tests.made import fill, product, unit

SLOWLY = settings(max_examples=60, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
BASE = unit(30, 24, seed=1)
NEAR = BASE[[0, 0, 1, 2]] + 0.05 * unit(4, 24, seed=2)
VECTORS = np.concatenate([BASE, NEAR, BASE[:1]]).astype(np.float32)
VECTORS[5] = 0  # like nothing, not even another zero
VECTORS[6] = 0
COUNT = len(VECTORS)
ROWS = [product(n, None if n == 1 else f"thing {n}", kind="ab"[n % 2], price=n % 4 or None) for n in range(COUNT)]


@pytest.fixture(scope="module", params=["faiss", "milvus"])
def opened(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    backend = f"faiss:///{folder}/faiss" if request.param == "faiss" else f"milvus:///{folder}/lite.db"
    with embedkit.connect(backend=backend, home=folder / "home") as kit:
        yield kit


@pytest.fixture(scope="module")
def there(opened):
    codes = np.packbits(VECTORS > 0, axis=1)
    return fill(opened, "things", ROWS, {"image": VECTORS, "code": codes}, metric="ip")


def joined(alike):
    """The components of a matrix of truths, walked from row to row."""
    left, found = set(range(len(alike))), []
    while left:
        group, new = set(), {min(left)}
        while new:
            group |= new
            new = {int(other) for one in new for other in np.flatnonzero(alike[one])} - group
        left -= group
        found.append(group)
    return {frozenset(group) for group in found if len(group) > 1}


def places(hits):
    return frozenset(int(hit.key[1:]) for hit in hits)


@SLOWLY
@given(st.integers(1, 12), st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=20), st.integers(1, 5))
def test_components_are_the_connected_ones(count, edges, step):
    edges = [(a % count, b % count) for a, b in edges]
    alike = np.eye(count, dtype=bool)
    for a, b in edges:
        alike[a, b] = alike[b, a] = True
    parts = [np.array(edges[start : start + step]).T for start in range(0, len(edges), step)]
    roots = components(count, [(part[0], part[1]) for part in parts])
    groups = {frozenset(np.flatnonzero(roots == root).tolist()) for root in set(roots.tolist())}
    assert {group for group in groups if len(group) > 1} == joined(alike)
    assert all(roots[row] == min(group) for group in groups for row in group)


@pytest.mark.parametrize("view", ["image", "code"])
def test_groups_are_the_components_of_enough_likeness(there, monkeypatch, view):
    monkeypatch.setattr(duplicates, "_BLOCK", 4)
    monkeypatch.setattr(duplicates, "_PAIRS", 5)
    compared = np.where(VECTORS > 0, 1.0, -1.0) if view == "code" else VECTORS.astype(float)
    lengths = np.linalg.norm(compared, axis=1, keepdims=True)
    cosine = (compared / np.where(lengths == 0, 1, lengths)) @ (compared / np.where(lengths == 0, 1, lengths)).T
    told = []
    found = there.dedup(threshold=0.9, view=view, progress=told.append)
    assert found.compared == COUNT
    assert [(one.seen, one.total) for one in told] == [(min(seen, COUNT), COUNT) for seen in range(4, COUNT + 4, 4)]
    right = joined(cosine >= 0.9 - 1e-6)
    assert {places([group.keep, *group.others]) for group in found.groups} == right
    assert len(right) >= 3
    for group in found.groups:
        keep = int(group.keep.key[1:])
        assert [hit.score for hit in group.others] == pytest.approx(
            sorted((cosine[keep, int(hit.key[1:])] for hit in group.others), reverse=True), abs=1e-5
        )
        best = min(
            (group.keep, *group.others),
            key=lambda hit: (
                hit.product.title is None,
                -sum(value is not None for value in hit.product.attributes.values()),
                hit.key,
            ),
        )
        assert group.keep is best


def test_equal_vectors_are_found_at_a_threshold_of_1_and_a_filter_leaves_out(there):
    assert {places([group.keep, *group.others]) for group in there.dedup(threshold=1).groups} == {frozenset({0, 34})}
    assert there.dedup(threshold=1, where="title like '%4'").groups == []
    assert there.dedup(threshold=0.9, where="kind == 'nothing'").compared == 0


def test_the_ends_of_a_chain_are_told_but_not_removable(opened):
    turns = np.arange(4) * np.arccos(0.96)
    chain = np.stack([np.cos(turns), np.sin(turns)], axis=1).astype(np.float32)
    there = fill(opened, "chain", [product(n, "x") for n in range(4)], {"image": chain})
    report = there.dedup(threshold=0.95)
    assert places([report.groups[0].keep, *report.groups[0].others]) == {0, 1, 2, 3}
    assert report.removable == ["p0001"]
    assert there.delete(report.removable) == 1
    assert places(hit for group in there.dedup(threshold=0.95).groups for hit in (group.keep, *group.others)) == {2, 3}


def test_clusters_are_those_there_are_and_agree_with_the_labels(opened):
    random = np.random.default_rng(3)
    centres, kinds = unit(4, 16, seed=4), random.integers(0, 4, 60)
    vectors = (centres[kinds] + 0.05 * random.standard_normal((60, 16))).astype(np.float32)
    labels = [int(kind) if n % 5 else None for n, kind in enumerate(kinds)]
    noisy = [0 if n % 7 == 0 else label for n, label in enumerate(labels)]
    rows = [product(n, f"t{n}", kind=label, noisy=noisy[n]) for n, label in enumerate(labels)]
    there = fill(opened, "clouds", rows, {"image": vectors})
    found = there.cluster(4, labels="kind")
    assert {places(one.members) for one in found.clusters} == {
        frozenset(np.flatnonzero(kinds == kind).tolist()) for kind in range(4)
    }
    assert [one.number for one in found.clusters] == [1, 2, 3, 4]
    assert [len(one.members) for one in found.clusters] == sorted(np.bincount(kinds).tolist(), reverse=True)
    assert (found.nmi, found.labelled) == (pytest.approx(1), 48)
    number = {hit.key: one.number for one in found.clusters for hit in one.members}
    known = [n for n in range(60) if noisy[n] is not None]
    right = normalized_mutual_info_score([noisy[n] for n in known], [number[f"p{n:04}"] for n in known])
    assert there.cluster(4, labels="noisy").nmi == pytest.approx(right)
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for one in found.clusters:
        mean = units[sorted(places(one.members))].mean(axis=0)
        near = [units[int(hit.key[1:])] @ mean / np.linalg.norm(mean) for hit in one.members]
        assert [hit.score for hit in one.members] == pytest.approx(near, abs=1e-5)
        assert near == sorted(near, reverse=True)
    assert sum(len(one.members) for one in there.cluster(2, where="noisy == 0").clusters) == sum(
        value == 0 for value in noisy
    )


def test_codes_and_squared_distances_have_clusters_too(opened, there):
    assert sum(len(one.members) for one in there.cluster(3, view="code").clusters) == COUNT
    far = np.array([[1, 0], [1.1, 0], [100, 0], [101, 0]], np.float32)  # one direction
    lengths = fill(opened, "lengths", [product(n) for n in range(4)], {"image": far}, metric="l2")
    assert {places(one.members) for one in lengths.cluster(2).clusters} == {frozenset({0, 1}), frozenset({2, 3})}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda there: there.dedup(threshold=1.5), "threshold=1.5 is no cosine similarity"),
        (lambda there: there.dedup(threshold="high"), "threshold is a cosine similarity, not str"),
        (lambda there: there.dedup(view="imgae"), "no view 'imgae'"),
        (lambda there: there.cluster(0), "k=0 is not a number of clusters"),
        (lambda there: there.cluster(99), "has 35 products with a vector in 'image', less than k=99"),
        (lambda there: there.cluster(2, where="kind == 'x'"), "has 0 products.*that the filter admits"),
        (lambda there: there.cluster(2, labels="colour"), "has the attribute 'colour'"),
        (lambda there: there.cluster(2, labels=5), "labels is an attribute.*, not int"),
    ],
)
def test_what_cannot_be_grouped_is_said(there, call, message):
    with pytest.raises(BadInput, match=message):
        call(there)


def called(*arguments, code=0, **given):
    done = CliRunner().invoke(app, [str(one) for one in arguments], **given)
    assert done.exit_code == code, done.output
    return done


def test_the_command_line_tells_keeps_and_deletes_only_when_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EMBEDKIT_BACKEND", "faiss:///vectors")
    with embedkit.connect() as kit:
        fill(kit, "things", ROWS, {"image": VECTORS}, metric="ip")
    told = called("dedup", "things", "-t", 0.9, "--csv", "out/groups.csv", "--html", "out/groups.html")
    assert "p0030\tp0000, p0034, p0031" in told.stdout  # it has the most attributes
    assert "3 groups; 5 of 35 products are near-duplicates" in told.output
    lines = (tmp_path / "out/groups.csv").read_text().splitlines()
    assert lines[0] == "group,key,title,similarity,keep"
    assert lines[1].startswith("1,p00")
    assert lines[1].endswith(",1.000000,yes")
    assert sum(line.endswith(",yes") for line in lines) == 3
    assert "keep p00" in (tmp_path / "out/groups.html").read_text()
    found = json.loads(called("dedup", "things", "-t", 0.9, "--json").stdout)
    assert (found["deleted"], len(found["removable"]), len(found["groups"])) == (0, 5, 3)
    called("dedup", "things", "-t", 0.9, "--delete", input="n\n", code=1)
    assert "give --yes" in called("dedup", "things", "-t", 0.9, "--delete", "--json", code=2).output
    assert "Deleted 5 products." in called("dedup", "things", "-t", 0.9, "--delete", input="y\n").output
    assert "0 groups; 0 of 30" in called("dedup", "things", "-t", 0.9).output
    assert json.loads(called("dedup", "things", "--delete", "--yes", "--json").stdout)["deleted"] == 0

    told = called("cluster", "things", "-k", 3, "--labels", "kind", "--csv", "c.csv", "--html", "c.html")
    assert "with 'kind', which 30 products have" in told.output
    assert len((tmp_path / "c.csv").read_text().splitlines()) == 31
    assert (tmp_path / "c.html").read_text().count("<figure>") == 30
    monkeypatch.setattr(groups, "_ON_PAGE", 2)
    monkeypatch.setattr(groups, "_OF_CLUSTER", 3)
    assert "Pictures of the first 2: c.html" in called("cluster", "things", "-k", 3, "--html", "c.html").output
    assert "products, the 3 nearest to the mean" in (tmp_path / "c.html").read_text()
    clusters = json.loads(called("cluster", "things", "-k", 3, "--json").stdout)["clusters"]
    assert sum(one["size"] for one in clusters) == 30
