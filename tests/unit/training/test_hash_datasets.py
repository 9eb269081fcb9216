"""CIFAR-10, MIRFlickr and NUS-WIDE in miniature, and what is a right answer among pictures of several concepts."""

from __future__ import annotations

import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedkit.encoders.images import decode_image
from embedkit.errors import BadImage, BadSource
from embedkit.training.datasets.contract import DataSet, Split
from embedkit.training.datasets.open import check_dataset, open_dataset
from embedkit.training.datasets.pixels import picture_bytes
from embedkit.training.datasets.relevance import Relevance, relevance_of
from embedkit.training.evaluation.evaluate import score_vectors
from embedkit.training.evaluation.hashing import hashing_scores
from embedkit.training.evaluation.limit import limited
from tests.unit.training import trees


@pytest.fixture(scope="module")
def cifar(tmp_path_factory):
    return trees.cifar10(tmp_path_factory.mktemp("cifar"))


def test_cifar_asks_with_a_hundred_of_each_class_and_trains_on_five_hundred_of_the_others(cifar):
    data = open_dataset(cifar)
    assert np.bincount(data.query.labels).tolist() == [100] * 10
    assert np.bincount(data.train.labels).tolist() == [500] * 10
    assert len(data.gallery) == 6 * 1_010 - 1_000
    assert not set(data.query.paths) & set(data.gallery.paths)
    assert set(data.train.paths) <= set(data.gallery.paths)
    assert data.query.names[3] == "cat"
    assert data.top == len(data.gallery), "the whole ranking counts"


def test_the_owners_split_of_cifar_is_had_by_name(cifar):
    data = open_dataset(cifar, name="cifar10-official")
    assert {Path(path).name.partition("#")[0] for path in data.query.paths} == {"test_batch.bin"}
    assert (len(data.query), len(data.train), len(data.gallery)) == (1_010, 5_050, 5_050)


def test_a_record_is_decoded_plane_by_plane(cifar):
    path = next(path for path in open_dataset(cifar).gallery.paths if path.endswith("data_batch_2.bin#260"))
    picture = np.asarray(decode_image(picture_bytes(path)))
    assert picture.shape == (32, 32, 3)
    assert picture[0, 5].tolist() == [260 % 251, 200, 0]
    assert picture[1, 5].tolist() == [260 % 251, 0, 0]
    with pytest.raises(BadImage, match="the file ends before it"):
        picture_bytes(path.replace("#260", "#9999"))


class _Bomb:
    def __reduce__(self):
        return open, ("exploded", "w")


def test_the_pickled_version_of_cifar_is_refused_and_not_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("data_batch_1", "test_batch"):
        (tmp_path / name).write_bytes(pickle.dumps(_Bomb()))
    with pytest.raises(BadSource, match=r"data_batch_1: it is pickled, which can run code.*cifar-10-binary\.tar\.gz"):
        open_dataset(tmp_path)
    assert any("pickled" in problem for problem in check_dataset(tmp_path).problems)
    assert not (tmp_path / "exploded").exists()


def test_a_batch_that_is_cut_short_or_of_other_classes_is_refused(tmp_path):
    batch = trees.cifar10(tmp_path, 2) / "cifar-10-batches-bin" / "data_batch_3.bin"
    whole = batch.read_bytes()
    batch.write_bytes(whole[:-1])
    with pytest.raises(BadSource, match=r"data_batch_3\.bin: 61,459 bytes are no records of 3,073"):
        open_dataset(tmp_path)
    batch.write_bytes(bytes([77]) + whole[1:])
    with pytest.raises(BadSource, match="the label 77 is no class of CIFAR-10"):
        open_dataset(tmp_path)


def test_mirflickr_has_24_concepts_and_leaves_out_pictures_without_any(tmp_path):
    data = open_dataset(trees.mirflickr(tmp_path))
    assert data.concepts == tuple(trees.MIRFLICKR)
    assert len(data.query) + len(data.gallery) == 12
    assert len(data.missing) == 2_101 - 12
    for split in data.splits.values():
        assert split.concepts.shape == (len(split), 24)
        assert split.concepts.any(axis=1).all()
    names = {Path(path).name: row for row, path in enumerate(data.gallery.paths)}
    both = [names[name] for name in ("im1.jpg", "im2.jpg") if name in names]
    assert [sorted(np.flatnonzero(row)) for row in data.gallery.concepts[both]] == [[17, 18]] * len(both)
    assert data.gallery.classes <= 2


def test_a_picture_that_mirflickr_does_not_have_is_named_with_its_line(tmp_path):
    trees.mirflickr(tmp_path)
    trees.text(tmp_path, "mirflickr25k_annotations_v080/dog.txt", "7", "25001")
    with pytest.raises(BadSource, match=r"dog\.txt line 2: there is no picture 25001 among 25,000"):
        open_dataset(tmp_path)


def test_nuswide_takes_the_21_most_frequent_concepts_and_100_queries_of_each(tmp_path):
    data = open_dataset(trees.nuswide(tmp_path))
    assert len(data.concepts) == 21
    assert "concept21" not in data.concepts, "which has one picture"
    assert data.top == 5_000
    assert len(data.query) + len(data.gallery) == 294
    assert len(data.missing) == 2_940 - 294
    assert not set(data.query.paths) & set(data.gallery.paths)
    assert set(data.train.paths) == set(data.gallery.paths), "of 40 that are left of a concept, 500 train"


def test_nuswide_with_all_concepts_is_had_by_name(tmp_path):
    with pytest.raises(BadSource, match="no pictures to judge in gallery"):
        open_dataset(trees.nuswide(tmp_path), name="nuswide81")
    shutil.rmtree(tmp_path / "Groundtruth" / "AllLabels")
    trees.text(tmp_path, "Groundtruth/AllLabels/Labels_concept00.txt", "1", "0")
    with pytest.raises(BadSource, match=r"Labels_concept00\.txt: it has 2 rows, and the list of pictures 2,940"):
        open_dataset(tmp_path, name="nuswide81")


# -- relevance -------------------------------------------------------------------------------------------------------

FLAGS = st.integers(1, 130).flatmap(
    lambda width: st.tuples(
        *(st.lists(st.lists(st.booleans(), min_size=width, max_size=width), min_size=1, max_size=9) for _ in "qg")
    )
)


@given(FLAGS)
@settings(max_examples=60, deadline=None)
def test_pictures_answer_each_other_that_share_a_concept(flags):
    asked, stored = (np.array(part, bool) for part in flags)
    zeros = [np.zeros(len(part), np.int64) for part in (asked, stored)]
    expected = [[bool((one & other).any()) for other in stored] for one in asked]
    relevance = Relevance(*zeros, concepts=asked, against_concepts=stored)
    ids = np.tile(np.arange(len(stored)), (len(asked), 1))
    assert relevance(slice(0, len(asked)), ids).tolist() == expected
    assert relevance.counts().tolist() == [sum(row) for row in expected]
    alone = Relevance(zeros[0], concepts=asked)
    others = [sum(bool((a & b).any()) for j, b in enumerate(asked) if i != j) for i, a in enumerate(asked)]
    assert alone.counts().tolist() == others


def test_where_there_are_no_concepts_the_label_counts():
    relevance = Relevance(np.array([3, 5, 9]), np.array([5, 3, 5]))
    assert relevance.counts().tolist() == [1, 2, 0]
    assert relevance(slice(1, 3), np.array([[0, 1], [2, 1]])).tolist() == [[True, False], [False, False]]
    assert Relevance(np.array([4, 4, 6])).counts().tolist() == [1, 1, 0]


def shared_concepts():
    """Four queries and six pictures of three concepts; their sets differ, so that labels agree nowhere."""
    asked = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]], bool)
    stored = np.array([[1, 0, 1], [0, 1, 1], [1, 1, 1]] * 2, bool)
    query = Split(tuple("abcd"), np.arange(4), concepts=asked)
    gallery = Split(tuple("efghij"), np.arange(10, 16), concepts=stored)
    return DataSet("several", "query-gallery", query, query, gallery, concepts=("sky", "sea", "dog"))


def test_evaluation_takes_a_shared_concept_for_right_where_no_label_agrees():
    data = shared_concepts()
    assert relevance_of(data).counts().tolist() == [4, 4, 6, 6]
    vectors = np.eye(6, dtype=np.float32)
    scores = score_vectors(data, vectors[[0, 0, 0, 1]], vectors)
    assert scores.unmatched == 0
    assert scores.values["recall@1"] == 3 / 4, "the sea is not in the first picture"


def test_codes_are_judged_by_shared_concepts_up_to_the_rank_of_the_papers():
    data = replace(shared_concepts(), top=2)
    queries = np.array([[1, 1], [1, 1], [1, 1], [-1, -1]], np.float32)
    gallery = np.array([[1, 1], [1, 1], [1, -1], [1, -1], [-1, -1], [-1, -1]], np.float32)
    scores = hashing_scores(
        queries, data.query.labels, gallery, data.gallery.labels, top=data.top, relevance=relevance_of(data)
    )
    # the nearest two, by index: 0 has sky and dog, 1 sea and dog; 4 has sea and dog, 5 all three
    assert scores.values["map@2"] == pytest.approx((1 + 1 / 2 + 1 + 1) / 4)


def test_a_few_of_a_set_of_concepts_are_spread_over_it():
    data = limited(shared_concepts(), 2)
    assert (data.query.paths, len(data.gallery)) == (("a", "d"), 6)
    assert data.query.concepts.tolist() == [[True, False, False], [True, True, False]]
