"""Data sets of nearest neighbours: the files of the field are read as they are, and what does not fit is told."""

from __future__ import annotations

import sys

import h5py
import numpy as np
import pytest

from embedkit.bench.formats import open_rows
from embedkit.bench.sets import open_ann_set
from embedkit.bench.truth import distances_of, exact_truth, limits_of, recall_of
from embedkit.errors import BadInput, BadSource, MissingExtra

RNG = np.random.default_rng(7)
TEXMEX = {".fvecs": "<f4", ".ivecs": "<i4", ".bvecs": "u1"}
BIG = {".fbin": "<f4", ".u8bin": "u1", ".i8bin": "i1", ".ibin": "<i4"}


def write(path, rows):
    """A file of the field, written byte by byte as its owners describe it."""
    kind = path.suffix
    if kind in TEXMEX:
        head = np.int32(rows.shape[1]).tobytes()
        path.write_bytes(b"".join(head + row.astype(TEXMEX[kind]).tobytes() for row in rows))
    elif kind in BIG:
        path.write_bytes(np.array(rows.shape, "<i4").tobytes() + rows.astype(BIG[kind]).tobytes())
    else:
        np.save(path, rows)
    return path


def nearest(base, queries, k, metric):
    """By 64-bit numbers and a sort of all."""
    base, queries = base.astype(np.float64), queries.astype(np.float64)
    if metric == "cosine":
        base, queries = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (base, queries))
    apart = np.square(queries[:, None] - base[None]).sum(axis=2) if metric == "l2" else -(queries @ base.T)
    return np.argsort(apart, axis=1, kind="stable")[:, :k]


@pytest.mark.parametrize("kind", [*TEXMEX, *BIG, ".npy"])
def test_every_format_gives_the_rows_that_were_written(tmp_path, kind):
    rows = RNG.integers(0, 100, (37, 12)).astype({**TEXMEX, **BIG, ".npy": "<f4"}[kind])
    read = open_rows(write(tmp_path / f"rows{kind}", rows))
    assert read.dtype == rows.dtype
    assert (read == rows).all()


def test_the_distances_behind_true_neighbours_are_no_rows(tmp_path):
    ids = RNG.integers(0, 100, (5, 10)).astype("<i4")
    path = write(tmp_path / "truth.ibin", ids)
    path.write_bytes(path.read_bytes() + RNG.random((5, 10)).astype("<f4").tobytes())
    assert (open_rows(path) == ids).all()


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.fvecs", b"", "is empty"),
        ("a.fvecs", np.array([0, 1], "<i4").tobytes(), "begins with a vector of 0 numbers"),
        ("a.fvecs", b"\x89HDF" + bytes(60), "begins with a vector of 1,178,880,137 numbers"),
        ("a.fvecs", np.array([3, 1, 1, 1, 3, 1], "<i4").tobytes(), "its 24 bytes are no whole number of them"),
        ("a.bvecs", np.array([4], "<i4").tobytes() + b"abcd" + np.array([5], "<i4").tobytes() + b"abcd", "says 5"),
        ("a.fbin", np.array([9, 4, 1], "<i4").tobytes(), "which makes 152 bytes, and it has 12"),
        ("a.u8bin", np.array([0, 4], "<i4").tobytes(), "its header says 0 vectors"),
        ("a.npy", b"not numpy", "is no .npy of numbers"),
        ("a.npy", b"PK\3\4 an .npz by another name", "is no .npy of numbers"),
        ("a.txt", b"1 2 3", "is no file of vectors"),
    ],
)
def test_a_broken_file_is_named_with_what_is_wrong(tmp_path, name, content, told):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadSource, match=told) as error:
        open_rows(tmp_path / name)
    assert name in str(error.value)


@pytest.fixture
def vectors():
    return RNG.standard_normal((300, 8)).astype(np.float32)


@pytest.fixture
def texmex(tmp_path, vectors):
    """A folder as SIFT1M is laid out."""
    folder = tmp_path / "sift"
    folder.mkdir()
    write(folder / "sift_base.fvecs", vectors[20:])
    write(folder / "sift_query.fvecs", vectors[:20])
    write(folder / "sift_groundtruth.ivecs", nearest(vectors[20:], vectors[:20], 10, "l2"))
    return folder


def test_a_folder_of_texmex_is_whole(texmex, vectors):
    found = open_ann_set(texmex)
    assert (found.name, found.metric, found.dim) == ("sift", "l2", 8)
    assert (found.base == vectors[20:]).all()
    assert (found.queries == vectors[:20]).all()
    assert (found.truth == nearest(vectors[20:], vectors[:20], 10, "l2")).all()


def test_a_folder_of_big_ann_is_read_by_its_own_names(tmp_path, vectors):
    write(tmp_path / "base.280.fbin", vectors[20:])
    write(tmp_path / "query.public.20.fbin", vectors[:20])
    write(tmp_path / "groundtruth.public.20.ibin", nearest(vectors[20:], vectors[:20], 10, "l2"))
    found = open_ann_set(tmp_path)
    assert (len(found.base), len(found.queries), found.truth.shape) == (280, 20, (20, 10))


def test_a_file_of_ann_benchmarks_says_its_metric(tmp_path, vectors):
    with h5py.File(tmp_path / "glove-8-angular.hdf5", "w") as file:
        file.attrs["distance"] = "angular"
        file["train"], file["test"] = vectors[20:], vectors[:20]
        file["neighbors"] = nearest(vectors[20:], vectors[:20], 10, "cosine")
    found = open_ann_set(tmp_path / "glove-8-angular.hdf5")
    assert (found.name, found.metric) == ("glove-8-angular", "cosine")
    assert (exact_truth(found.base, found.queries, 10, metric="cosine") == found.truth).all()


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("train", RNG.random(20), r"'train' of .*a\.hdf5.* of the shape \(20,\), and not rows of numbers"),
        ("test", RNG.random(8), r"'test' of .* of the shape \(8,\)"),
        ("test", np.array([b"a", b"b"]), "'test' of .* is |S1"),
        ("neighbors", np.array([[b"a"]]), "'neighbors' of .* is |S1"),
        ("neighbors", RNG.random((20, 10)), "'neighbors' of .* is float64"),
    ],
)
def test_a_part_of_an_hdf5_file_that_is_no_rows_of_numbers_is_named(tmp_path, vectors, name, content, told):
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        for part, rows in {"train": vectors[20:], "test": vectors[:20], name: content}.items():
            file[part] = rows
    with pytest.raises(BadSource, match=told):
        open_ann_set(tmp_path / "a.hdf5")


def test_a_part_of_an_hdf5_file_that_cannot_be_unpacked_is_named(tmp_path, vectors):
    path = tmp_path / "a.hdf5"
    with h5py.File(path, "w") as file:
        file.create_dataset("train", data=vectors[20:], chunks=(280, 8), compression="gzip")
        file["test"] = vectors[:20]
        place = file["train"].id.get_chunk_info(0).byte_offset
    content = bytearray(path.read_bytes())
    content[place : place + 50] = bytes(50)
    path.write_bytes(content)
    with pytest.raises(BadSource, match=r"'train' of .*a\.hdf5' cannot be read .*fetch it again"):
        open_ann_set(path)


def test_without_h5py_the_extra_is_named(tmp_path, monkeypatch):
    (tmp_path / "sift.hdf5").touch()
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingExtra, match=r"embedkit-search\[bench\]"):
        open_ann_set(tmp_path / "sift.hdf5")


def test_a_file_alone_gives_queries_that_are_not_in_its_base(tmp_path, vectors):
    found = open_ann_set(write(tmp_path / "mine.npy", vectors), most_queries=25)
    assert (len(found.base), len(found.queries), found.truth) == (275, 25, None)
    both = {row.tobytes() for row in found.base} & {row.tobytes() for row in found.queries}
    assert not both


def test_a_part_of_the_vectors_has_other_neighbours(texmex):
    found = open_ann_set(texmex, size=100)
    assert (found.name, len(found.base), found.truth) == ("sift-100", 100, None)


def test_another_metric_has_other_neighbours(texmex):
    assert open_ann_set(texmex, metric="ip").truth is None


def test_parts_that_do_not_fit_together_are_refused(texmex, tmp_path, vectors):
    few = write(tmp_path / "few.ivecs", np.zeros((3, 10), np.int32))
    far = write(tmp_path / "far.ivecs", np.full((20, 10), 280, np.int32))
    none = write(tmp_path / "none.ivecs", np.full((20, 10), -1, np.int32))
    wide = write(tmp_path / "wide.fvecs", np.zeros((20, 9), np.float32))
    for given, told in (
        ({"truth": few}, "those of 3 queries, and there are 20"),
        ({"truth": far}, "name vector 280, and there are 280"),
        ({"truth": none}, "name vector -1, and there are 280"),
        ({"truth": wide}, "is no file of true neighbours"),
        ({"queries": wide}, "have 9 numbers and its vectors 8"),
        ({"size": 281}, "has 280 vectors; 281 are more"),
    ):
        with pytest.raises((BadInput, BadSource), match=told):
            open_ann_set(texmex, **given)
    (texmex / "other_base.fvecs").write_bytes((texmex / "sift_base.fvecs").read_bytes())
    with pytest.raises(BadSource, match="several files"):
        open_ann_set(texmex)


def test_what_is_no_data_set_is_refused(tmp_path):
    with pytest.raises(BadSource, match="There is no data set"):
        open_ann_set(tmp_path / "nothing")
    with pytest.raises(BadSource, match="has no file of vectors"):
        open_ann_set(tmp_path)
    (tmp_path / "cut.hdf5").write_bytes(b"\x89HDF\r\n\x1a\n cut short")
    with pytest.raises(BadSource, match="not a whole one"):
        open_ann_set(tmp_path / "cut.hdf5")
    with h5py.File(tmp_path / "jaccard.hdf5", "w") as file:
        file.attrs["distance"] = "jaccard"
        file["train"] = file["test"] = np.ones((4, 4), bool)
    with pytest.raises(BadSource, match="measured by 'jaccard'"):
        open_ann_set(tmp_path / "jaccard.hdf5")


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
def test_true_neighbours_are_those_of_a_sort_of_all(vectors, metric):
    base, queries = vectors[20:], vectors[:20]
    found = exact_truth(base, queries, 10, metric=metric)
    assert (found == nearest(base, queries, 10, metric)).all()


def test_of_rows_at_the_same_distance_any_is_right(vectors):
    base = np.concatenate([vectors[20:40]] * 3)  # every row thrice
    limits = limits_of(base, vectors[:20], exact_truth(base, vectors[:20], 1, metric="l2"), metric="l2")
    first = nearest(base, vectors[:20], 1, "l2")
    twin, other = (first + 40) % 60, (first + 1) % 60
    found = [recall_of(distances_of(base, vectors[:20], ids, metric="l2"), limits, 1) for ids in (first, twin, other)]
    assert found == [1.0, 1.0, 0.0]


def test_a_hit_that_is_missing_is_not_found(vectors):
    truth = exact_truth(vectors, vectors[:5], 2, metric="l2")
    limits = limits_of(vectors, vectors[:5], truth, metric="l2")
    truth[:, 1] = -1
    assert recall_of(distances_of(vectors, vectors[:5], truth, metric="l2"), limits, 2) == 0.5
