"""Batches of training pictures: their order, what is kept, and what cannot be read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from embedkit.encoders.preprocess import Preprocess
from embedkit.errors import BadSource
from embedkit.training.datasets.contract import Split
from embedkit.training.datasets.pixels import split_pixels
from embedkit.training.pictures import Pictures
from tests.conftest import picture

RECIPE = Preprocess(size=(16, 24))
PLAN = [[3, 1], [0, 0, 5], [2, 4], [1, 5], [5], [3, 2, 1], [0]]


@pytest.fixture
def split(tmp_path):
    paths = [tmp_path / f"{place}.png" for place in range(6)]
    for place, path in enumerate(paths):
        picture(place, (40, 30)).save(path)
    return Split(tuple(map(str, paths)), np.array([5, 4, 3, 2, 1, 0], np.int64))


@pytest.mark.parametrize("keep", [0, 2**30], ids=["decoded each time", "kept"])
def test_batches_come_in_the_order_of_the_plan_with_their_pixels_and_labels(split, keep):
    with Pictures(split, RECIPE, threads=2, keep=keep) as pictures:
        for _ in range(2):
            found = list(pictures.batches(PLAN))
            assert [batch.rows.tolist() for batch in found] == PLAN
            for batch in found:
                assert batch.labels.tolist() == [5 - row for row in batch.rows]
                for row, pixels in zip(batch.rows, batch.pixels, strict=True):
                    assert np.array_equal(pixels, split_pixels(split, row, RECIPE))


def test_pictures_are_kept_only_where_they_fit_into_the_memory_given(split):
    size = 6 * 16 * 24 * 3
    for keep, kept in ((size, True), (size - 1, False)):
        with Pictures(split, RECIPE, threads=1, keep=keep) as pictures:
            list(pictures.batches([[0]]))
            path = Path(split.paths[0])
            data = path.read_bytes()
            path.write_bytes(b"")
            (batch,) = pictures.batches([[0]])
            assert len(batch.rows) == kept
            path.write_bytes(data)


@pytest.mark.parametrize("keep", [0, 2**30], ids=["decoded each time", "kept"])
def test_what_cannot_be_read_is_left_out_and_named_and_its_batch_still_comes(split, keep):
    Path(split.paths[5]).write_bytes(b"no picture")
    with Pictures(split, RECIPE, threads=2, keep=keep) as pictures:
        found = list(pictures.batches(PLAN))
        assert [batch.rows.tolist() for batch in found] == [[3, 1], [0, 0], [2, 4], [1], [], [3, 2, 1], [0]]
        assert found[4].pixels.shape == (0, 16, 24, 3)
        assert list(pictures.failures) == [split.paths[5]]


@pytest.mark.parametrize("keep", [0, 2**30], ids=["decoded each time", "kept"])
def test_a_picture_that_failed_once_stays_out_when_it_can_be_read_again(split, keep):
    with Pictures(split, RECIPE, threads=2, keep=keep) as pictures:
        pictures.failures[split.paths[1]] = "as a checkpoint says"
        (batch,) = pictures.batches([[3, 1, 0]])
        assert batch.rows.tolist() == [3, 0]
        for row, pixels in zip(batch.rows, batch.pixels, strict=True):
            assert np.array_equal(pixels, split_pixels(split, row, RECIPE))


def test_a_split_of_which_nothing_can_be_read_is_refused_though_it_names_a_file_twice(split):
    for path in split.paths:
        Path(path).write_bytes(b"")
    twice = Split(split.paths + split.paths, np.concatenate([split.labels, split.labels]))
    with (
        Pictures(twice, RECIPE, threads=1) as pictures,
        pytest.raises(BadSource, match=r"None of the 12 .* the first is .*\.png: "),
    ):
        list(pictures.batches([[row] for row in range(12)]))
