"""An encoder on a data set, end to end, with the offline encoder and its exported folder."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import embedkit
from embedkit.encoders.contract import Encoder, EncoderSpec
from embedkit.encoders.load import load_encoder
from embedkit.errors import BadSource, ConfigError
from embedkit.training.datasets.contract import DataSet, Split
from embedkit.training.datasets.open import open_dataset
from embedkit.training.datasets.registry import find_dataset
from embedkit.training.evaluation.encode import encode_split
from embedkit.training.evaluation.evaluate import evaluate_data, score_vectors
from embedkit.training.evaluation.limit import limited
from tests.conftest import WITHOUT_TORCH, picture
from tests.unit.training import trees


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """Twelve classes of two pictures, the second one a JPEG of the first."""
    root = tmp_path_factory.mktemp("shop")
    for place in range(12):
        folder = root / f"thing {place:02}"
        folder.mkdir()
        picture(place, (96, 96)).save(folder / "exact.png")
        picture(place, (96, 96)).save(folder / "lossy.JPG", quality=90)
    return root


class Colours(Encoder):
    """The mean colour of each quarter, as 12 floats; or, as ``binary``, whether the first 8 are bright."""

    def __init__(self, kind="float"):
        self.runtime, self.concurrency = "numpy", 2
        self.spec = EncoderSpec("colours", ("image",), 8 if kind == "binary" else 12, "f", kind, False, (8, 8))
        self.taken = []

    def prepare(self, picture):
        from embedkit.encoders.images import decode_image

        image = decode_image(picture)
        self.taken.append(image.size)
        return np.asarray(image.resize((8, 8)))

    def encode(self, batch):
        means = np.asarray(batch, np.float32).reshape(-1, 2, 4, 2, 4, 3).mean(axis=(2, 4)).reshape(-1, 12)
        return np.packbits(means[:, :8] > 127, axis=1) if self.spec.kind == "binary" else means

    def close(self):
        pass


def test_the_offline_encoder_finds_the_other_copy_of_a_picture(shop):
    moments = []
    report = embedkit.evaluate_encoder("effnet-lite0", shop, progress=moments.append)
    assert report.metrics["recall@1"] == 1.0
    assert report.metrics["nmi"] == pytest.approx(1.0)
    assert (report.primary, report.greater_is_better, report.dim, report.pictures) == ("recall@1", True, 1280, 12)
    assert (moments[-1].seen, moments[-1].total, moments[-1].failed) == (12, 12, 0)
    plain = report.as_dict()
    assert {"recall@1", "recall@10", "map@r", "r-precision", "nmi", "f1", "model", "data"} <= plain.keys()


def test_a_model_folder_is_judged_as_the_encoder_it_was_made_of(shop, tmp_path):
    folder = embedkit.export_encoder("effnet-lite0", tmp_path / "model")
    mine = embedkit.evaluate_encoder(folder, shop, clusters=False)
    assert mine.metrics == embedkit.evaluate_encoder("effnet-lite0", shop, clusters=False).metrics
    assert "nmi" not in mine.metrics


def test_an_encoder_is_judged_without_torch(shop):
    code = f"""{WITHOUT_TORCH}
import embedkit
assert embedkit.evaluate_encoder('effnet-lite0', {str(shop)!r}).metrics['recall@1'] == 1.0
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_pictures_that_cannot_be_read_are_left_out_counted_and_named(tmp_path, caplog):
    trees.put(tmp_path, "a/1.png", "b/1.png", "b/2.png", "b/3.png", "b/4.png")
    (tmp_path / "b" / "2.png").write_bytes(b"broken")
    report = evaluate_data(Colours(), open_dataset(tmp_path))
    assert (report.failed, report.pictures, report.queries) == (1, 4, 3)
    assert report.failures[0][0].endswith("b/2.png")
    assert "1 pictures cannot be read" in caplog.text
    for place in "134":
        (tmp_path / "b" / f"{place}.png").write_bytes(b"")
    with pytest.raises(BadSource, match=r"None of the 4 pictures can be read; the first is .*1.png: the file is empty"):
        evaluate_data(Colours(), open_dataset(tmp_path))


@pytest.mark.parametrize("name", [name for name in trees.BUILDERS if find_dataset(name).protocol != "image-text"])
def test_every_protocol_is_judged_and_names_the_figure_that_decides(name, tmp_path):
    data = open_dataset(trees.BUILDERS[name](tmp_path))
    report = evaluate_data(Colours(), data)
    expected = {"pairs": "accuracy", "cross-camera": "map", "random-galleries": "recall@1:800"}
    expected |= {"consumer-to-shop": "top-20", "street-to-shop": "top-20"}
    assert report.primary == expected.get(data.protocol, "recall@1")
    assert all(0 <= value <= 1 for value in report.metrics.values())
    assert report.primary in report.metrics


def test_a_picture_that_is_lost_takes_its_pairs_and_rows_along(tmp_path):
    faces = open_dataset(trees.lfw(tmp_path / "lfw"))
    Path(faces.query.paths[-1]).write_bytes(b"broken")  # of the third pair alone
    report = evaluate_data(Colours(), faces)
    assert (report.failed, report.queries) == (1, 3)
    vehicles = open_dataset(trees.vehicleid(tmp_path / "cars"))
    assert evaluate_data(Colours(), vehicles).queries == 2
    Path(vehicles.query.paths[0]).write_bytes(b"broken")
    report = evaluate_data(Colours(), vehicles)
    assert (report.failed, report.queries, report.pictures) == (1, 1, 8)


def test_boxes_are_cut_out_before_the_encoder_sees_the_picture(tmp_path):
    data = open_dataset(trees.street2shop(tmp_path))
    encoder = Colours()
    encode_split(encoder, data.query, threads=1)
    assert set(encoder.taken) == {(4, 5)}


def test_codes_are_compared_by_hamming_distance(tmp_path):
    for place, shade in enumerate((0, 60, 200, 255)):
        (tmp_path / str(place // 2)).mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (shade,) * 3).save(tmp_path / str(place // 2) / f"{place}.png")
    data = open_dataset(tmp_path)
    vectors = encode_split(Colours("binary"), data.train).vectors
    assert vectors.tolist() == [[-1.0] * 8] * 2
    assert evaluate_data(Colours("binary"), data).metrics["recall@1"] == 1.0


def test_a_limit_takes_whole_classes_and_what_they_can_find(shop, tmp_path):
    data = limited(open_dataset(shop), 5)
    assert data.query.labels.tolist() == [0, 0, 1, 1]
    inshop = limited(open_dataset(trees.inshop(tmp_path / "i")), 1)
    assert (inshop.query.labels.tolist(), inshop.gallery.labels.tolist()) == ([0, 1], [0, 1]), (
        "one would be no question"
    )
    lfw = limited(open_dataset(trees.lfw(tmp_path / "l")), 4)
    assert (lfw.pairs.same.tolist(), len(lfw.query)) == ([True, False], 3)
    vehicles = limited(open_dataset(trees.vehicleid(tmp_path / "v")), 4)
    assert [len(part.rows) for part in vehicles.subsets] == [4, 4, 4]


def judged(labels, limit, gallery=None):
    """A limited data set, and how many pictures each of its classes has."""
    parts = [split_of(labels)] if gallery is None else [split_of(labels), split_of(gallery)]
    found = limited(DataSet("mine", "zero-shot" if gallery is None else "query-gallery", parts[0], *parts), limit)
    return found, np.unique(found.query.labels, return_counts=True)[1].tolist()


def split_of(labels):
    return Split(tuple(f"{row}.png" for row in range(len(labels))), np.asarray(labels, np.int64))


def test_a_limit_of_large_classes_takes_evenly_many_of_each_spread_over_it():
    found, counts = judged(np.repeat(np.arange(10), 600), 1000)
    assert counts == [100] * 10
    assert np.diff(np.array([int(path.partition(".")[0]) for path in found.query.paths])).tolist() == [6] * 999
    assert judged(np.repeat([0, 1], 40), 40)[1] == [20, 20]
    assert judged(np.repeat(np.arange(100), 600), 200)[1] == [10] * 20, "no more classes than have ten pictures each"
    assert judged(np.repeat([0, 1, 2], [3, 600, 2]), 50)[1] == [3, 45, 2], "what a small class lacks another has"


def test_a_limit_never_leaves_a_class_alone_where_every_answer_would_be_right():
    for limit in (1, 2, 5):
        found, counts = judged(np.repeat(np.arange(4), 50), limit)
        assert counts == [2, 2]
        assert score_vectors(found, np.ones((4, 3), np.float32), clusters=False).values["recall@1"] < 1


def test_a_limit_keeps_ten_times_as_many_of_the_gallery_and_classes_that_it_has():
    found, counts = judged(np.arange(200) % 5, 20, gallery=np.repeat([1, 3], 500))
    assert np.unique(found.query.labels).tolist() == [1, 3]
    assert counts == [10, 10]
    assert np.bincount(found.gallery.labels).tolist() == [0, 100, 0, 100]


def test_a_limit_that_leaves_the_gallery_empty_is_refused(tmp_path):
    for name in "123":
        picture(1).save(tmp_path / f"{name}.png")
    (tmp_path / "t.csv").write_text("path,label,split\n1.png,a,query\n2.png,b,query\n3.png,c,gallery\n")
    data = open_dataset(tmp_path / "t.csv")
    assert evaluate_data(Colours(), data).unmatched == 2
    with pytest.raises(ConfigError, match="A limit of 1 pictures leaves nothing to be found in the gallery"):
        evaluate_data(Colours(), data, limit=1)


def test_a_protocol_without_what_it_needs_is_refused_instead_of_judged_by_another(tmp_path):
    faces, persons = trees.BUILDERS["lfw"](tmp_path / "lfw"), trees.BUILDERS["market1501"](tmp_path / "market")
    data = open_dataset(faces)
    vectors = np.eye(len(data.query), 8, dtype=np.float32)
    with pytest.raises(BadSource, match="'pairs' needs pairs, which the data set 'lfw' lacks"):
        score_vectors(replace(data, pairs=None), vectors)
    data = open_dataset(persons)
    vectors = np.eye(len(data.query), 8, dtype=np.float32)
    with pytest.raises(BadSource, match="'cross-camera' needs a gallery, which"):
        score_vectors(replace(data, gallery=None), vectors)
    with pytest.raises(ConfigError, match="needs the vectors of the gallery too"):
        score_vectors(data, vectors)


def test_an_encoder_in_torch_may_be_closed_twice():
    encoder = load_encoder("effnet-lite0(size=64)", runtime="torch")
    encoder.close()
    encoder.close()


def test_what_cannot_be_judged_is_refused(shop, tmp_path):
    with pytest.raises(ConfigError, match="'minilm' takes no pictures"):
        embedkit.evaluate_encoder("minilm", shop)
    with pytest.raises(ConfigError, match="leaves nothing"):
        embedkit.evaluate_encoder("effnet-lite0", shop, limit=1)
    with pytest.raises(BadSource, match="no data set at"):
        embedkit.evaluate_encoder("effnet-lite0", shop / "nowhere")
    shutil.copytree(shop / "thing 00", tmp_path / "cat" / "thing")
    with pytest.raises(BadSource, match=r"cat has 2 pictures of one class .* give two classes or more$"):
        embedkit.evaluate_encoder("effnet-lite0", tmp_path / "cat")
