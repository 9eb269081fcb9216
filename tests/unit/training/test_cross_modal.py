"""Recall and median ranks between pictures and captions, held to a brute force; and the readers of captions."""

from __future__ import annotations

import json

import numpy as np
import pytest

from embedkit.errors import BadSource, ConfigError
from embedkit.training.datasets.contract import Captions, DataSet, Split, Subset
from embedkit.training.datasets.emoji import captions as captions_of_emoji
from embedkit.training.datasets.open import check_dataset, open_dataset
from embedkit.training.evaluation.cross_modal import cross_modal_scores, first_ranks
from embedkit.training.evaluation.evaluate import evaluate_encoder, score_vectors
from embedkit.training.evaluation.limit import limited
from embedkit.training.material import open_material
from embedkit.training.recipe import TrainingRecipe
from tests.unit.training import trees


def brute_force(queries, labels, gallery, gallery_labels):
    """The rank of the best right answer, one query at a time; ties go to the lower index."""
    ranks = []
    for query, label in zip(queries, labels, strict=True):
        scores = [float(query @ one / np.linalg.norm(query) / np.linalg.norm(one)) for one in gallery]
        order = sorted(range(len(gallery)), key=lambda row: (-scores[row], row))
        ranks.append(1 + next(place for place, row in enumerate(order) if gallery_labels[row] == label))
    return np.array(ranks)


def made(pictures=40, classes=13, seed=0):
    """Vectors of pictures and of two captions a class, near a common centre."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(classes, 6))
    labels, text_labels = np.arange(pictures) % classes, np.repeat(np.arange(classes), 2)
    vectors = centres[labels] + 0.8 * rng.normal(size=(pictures, 6))
    texts = centres[text_labels] + 0.8 * rng.normal(size=(2 * classes, 6))
    return vectors.astype(np.float32), labels, texts.astype(np.float32), text_labels


def test_figures_are_those_of_a_brute_force():
    vectors, labels, texts, text_labels = made()
    scores = cross_modal_scores(vectors, labels, texts, text_labels)
    for way, ranks in (
        ("t2i", brute_force(texts, text_labels, vectors, labels)),
        ("i2t", brute_force(vectors, labels, texts, text_labels)),
    ):
        for k in (1, 5, 10):
            assert scores.values[f"{way}-recall@{k}"] == pytest.approx((ranks <= k).mean())
        assert scores.values[f"{way}-median-rank"] == np.median(ranks)
    six = [value for name, value in scores.values.items() if "-recall@" in name]
    assert len(six) == 6
    assert scores.values["mean-recall"] == pytest.approx(np.mean(six))
    assert scores.queries == 40 + 26


@pytest.mark.parametrize("bits", [32, 48, 64])
def test_ties_of_codes_go_by_index_whatever_their_length(bits):
    rng = np.random.default_rng(0)
    gallery, queries = (np.where(rng.random((n, bits)) < 0.5, -1, 1).astype(np.float32) for n in (400, 60))
    labels, query_labels = np.arange(400) % 20, np.arange(60) % 20
    hamming = (queries[:, None] != gallery).sum(2)
    right = query_labels[:, None] == labels[np.argsort(hamming, axis=1, kind="stable")]
    assert first_ranks(queries, query_labels, gallery, labels).tolist() == (right.argmax(1) + 1).tolist()


def test_folds_are_judged_alone_and_averaged():
    vectors, labels, texts, text_labels = made(pictures=20, classes=20)
    folds = [Subset("fold 1", np.arange(0, 10)), Subset("fold 2", np.arange(10, 20))]
    found = cross_modal_scores(vectors, labels, texts, text_labels, subsets=folds).values
    parts = [
        cross_modal_scores(
            vectors[part.rows],
            labels[part.rows],
            *(half[np.isin(text_labels, part.rows)] for half in (texts, text_labels)),
        ).values
        for part in folds
    ]
    for name in ("t2i-recall@1", "i2t-median-rank", "mean-recall"):
        assert found[f"{name}:folds"] == pytest.approx(np.mean([part[name] for part in parts]))


def test_a_part_of_the_pictures_takes_its_captions_along():
    split = Split(("a", "b", "c"), np.array([0, 1, 1]), captions=Captions(("x", "y", "z"), np.array([1, 0, 1])))
    part = split.take(np.array([1]))
    assert part.captions.texts == ("x", "z")
    more = Split(tuple("abcdef"), np.arange(6), captions=Captions(tuple("uvwxyz"), np.arange(6)[::-1]))
    few = limited(DataSet("captions", "image-text", more, more), 4)
    assert few.query.captions.texts == ("w", "x", "y", "z")
    with pytest.raises(BadSource, match="vectors of the captions"):
        score_vectors(few, np.ones((4, 3), np.float32))


def test_karpathys_restval_joins_the_training_and_val_is_left_out(tmp_path):
    data = open_dataset(trees.coco(tmp_path))
    assert [path.rpartition("/")[2] for path in data.train.paths] == ["1.jpg", "2.jpg"]
    assert data.train.captions.texts == ("a dog runs .", "dog", "two cats")
    assert data.train.captions.labels.tolist() == [0, 0, 1]
    assert [fold.rows.tolist() for fold in data.subsets] == [[0], [1], [2], [3], [4]]
    assert (data.without_caption, len(data.query)) == (1, 5)


def test_a_folder_with_texts_beside_its_pictures(tmp_path):
    root = trees.captions(tmp_path)
    data = open_dataset(root, name="captions")
    assert (len(data.train), len(data.query), data.without_caption) == (8, 2, 1)
    assert data.query.captions.texts == ("thing 4", "thing 9", "once more")
    assert "1 pictures" not in str(check_dataset(root, name="captions").problems)
    assert check_dataset(root, name="captions").without_caption == 1


def test_a_table_is_read_in_each_of_its_forms(tmp_path):
    trees.put(tmp_path, *(f"{place}.jpg" for place in range(3)))
    (tmp_path / "a.csv").write_text(
        "path,caption,split\n0.jpg,red,train\n0.jpg,a red one,train\n1.jpg,blue,test\n2.jpg,,test"
    )
    rows = [{"image": "0.jpg", "caption": ["red", "a red one"], "split": "train"}]
    rows += [{"path": "1.jpg", "caption": "blue", "split": "val"}, {"path": "2.jpg", "split": "val"}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for name in ("a.csv", "a.jsonl"):
        data = open_dataset(tmp_path / name)
        assert (data.name, data.train.captions.texts, data.without_caption) == ("captions", ("red", "a red one"), 1)
        assert data.query.captions.texts == ("blue",)
    (tmp_path / "b.csv").write_text("path,text\n0.jpg,red\n")
    with pytest.raises(BadSource, match="needs the columns path and caption, not path, text"):
        open_dataset(tmp_path / "b.csv", name="captions")
    (tmp_path / "b.jsonl").write_text("[]")
    with pytest.raises(BadSource, match="line 1: it is no object"):
        open_dataset(tmp_path / "b.jsonl")


def test_what_is_no_caption_is_left_out_or_refused(tmp_path):
    trees.put(tmp_path, *(f"{n}.jpg" for n in range(5)))
    rows = [{"path": f"{n}.jpg", "caption": [f"number {n}", None]} for n in range(5)]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert open_dataset(tmp_path / "t.jsonl").query.captions.texts == ("number 4",)
    rows[1]["caption"] = "half of an emoji \ud83d"
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(BadSource, match=r"The caption '.*\\ud83d' is not valid text: surrogates not allowed at 18"):
        open_dataset(tmp_path / "t.jsonl")


def test_pictures_with_the_same_captions_are_alike_and_stay_on_one_side(tmp_path):
    trees.put(tmp_path, *(f"{place:02}.jpg" for place in range(12)))
    rows = [f"{place:02}.jpg,thing {place // 2}" for place in range(12)]
    (tmp_path / "a.csv").write_text("path,caption\n" + "\n".join(rows))
    data = open_dataset(tmp_path / "a.csv")
    assert data.train.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert data.query.labels.tolist() == [0, 0]
    assert (data.query.captions.texts, data.query.names) == (("thing 4",), ("thing 4",))


def test_a_plain_folder_is_read_for_its_captions_where_words_are_to_be_learned(tmp_path):
    root = trees.captions(tmp_path)
    recipe = TrainingRecipe(data=str(root), task="image-text", loss="clip")
    assert len(open_material(recipe).train.captions.texts) == 8
    for text in root.rglob("*.txt"):
        text.unlink()
    with pytest.raises(BadSource, match="read as 'captions'"):
        open_material(recipe)


def test_captions_of_emoji_are_names_and_belong_to_all_vendors(tmp_path):
    data = open_dataset(trees.emoji(tmp_path), name="emoji-captions")
    assert data.protocol == "image-text"
    assert set(data.query.captions.labels) == set(data.query.labels)
    halves = data.train.captions.texts + data.query.captions.texts
    assert {text.partition(" ")[0] for text in halves} == {f"name{n}" for n in range(5)}
    assert data.train.labels.tolist() == open_dataset(tmp_path).train.labels.tolist()
    found = captions_of_emoji(
        {"name": "GARLIC", "short_names": ["garlic", "big_garlic"], "subcategory": "food-vegetable"}
    )
    assert found == ("garlic", "garlic, big garlic (food vegetable)")


def test_an_encoder_that_reads_no_text_is_not_judged_by_captions(tmp_path):
    with pytest.raises(ConfigError, match="takes no texts"):
        evaluate_encoder("effnet-lite0", trees.captions(tmp_path), name="captions")
