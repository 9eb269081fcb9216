"""The plots of a run: what they show is computed a second time, plainly, from the whole matrix."""

from __future__ import annotations

import base64
import io
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from itertools import combinations

import numpy as np
import pytest
from PIL import Image

from embedkit.errors import BadInput, ConfigError
from embedkit.training.datasets.contract import Split
from embedkit.training.plots.curves import course_of, draw_curves, smoothed
from embedkit.training.plots.distances import pair_distances
from embedkit.training.plots.map import chosen_rows, places_of
from embedkit.training.plots.mistakes import worst_mistakes
from embedkit.training.plots.sprites import sheets_of, small
from embedkit.training.plots.write import write_plots
from tests.conftest import picture

NAMES = ("curves.png", "distances.png", "mistakes.png", "map.html")
HISTORY = [
    {"step": 0, "epoch": 0.0, "seconds": 0.0, "metrics": {"recall@1": 0.25, "recall@4": 0.5, "map@r": 0.2}},
    *({"step": s, "epoch": s / 10, "seconds": 2.0 * s, "loss": 2 / s, "rate": 1e-3 / s} for s in range(1, 21)),
    {"step": 20, "epoch": 2.0, "seconds": 41.0, "metrics": {"recall@1": 0.5, "recall@4": 0.75, "map@r": 0.4}},
]


def vectors_of(labels, *, spread, dim=16, seed=0):
    """Unit vectors around a centre for each class."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(max(labels) + 1, dim))
    vectors = centres[labels] + spread * random.normal(size=(len(labels), dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    """Ten classes of three pictures of different shapes."""
    root = tmp_path_factory.mktemp("pictures")
    paths = []
    for place in range(30):
        paths.append(str(root / f"picture {place}.png"))
        picture(place, ((60, 60), (80, 40), (30, 90))[place % 3]).save(paths[-1])
    return Split(tuple(paths), np.arange(30) // 3, names=tuple(f"thing {place}" for place in range(10)))


@pytest.fixture(scope="module")
def vectors(split):
    return vectors_of(split.labels, spread=1.0)


class Scripts(HTMLParser):
    """The texts of the script elements of a page, as a browser finds them."""

    def __init__(self, page):
        super().__init__()
        self.scripts, self.inside, self.links = [], False, []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.links += [value for name, value in attrs if name in ("src", "href")]
        if tag == "script":
            self.scripts.append("")
            self.inside = True

    def handle_endtag(self, tag):
        self.inside = self.inside and tag != "script"

    def handle_data(self, data):
        if self.inside:
            self.scripts[-1] += data


def data_of(path):
    return json.loads(Scripts(path.read_text(encoding="utf-8")).scripts[0])


def sheet_of(uri):
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB")


# All of them together


def test_a_run_leaves_three_pictures_and_a_page(split, vectors, tmp_path):
    folder = tmp_path / "runs" / "first try"
    paths = write_plots(folder, history=HISTORY, split=split, vectors=vectors)
    assert paths == tuple(folder / name for name in NAMES)
    for path in paths[:3]:
        with Image.open(path) as image:
            image.load()
            assert image.format == "PNG"
            assert image.width > 900
            assert image.height > 500
            assert len(image.convert("RGB").getcolors(2**24)) > 50
    assert data_of(paths[3])["run"] == "first try"


def test_a_folder_called_plots_takes_the_name_of_its_run(split, vectors, tmp_path):
    paths = write_plots(tmp_path / "second" / "plots", history=[], split=split, vectors=vectors)
    assert data_of(paths[3])["run"] == "second"


def test_the_same_run_gives_the_same_bytes(split, vectors, tmp_path):
    once, again = (
        write_plots(tmp_path / part / "run", history=HISTORY, split=split, vectors=vectors, seed=3) for part in "ab"
    )
    assert [path.read_bytes() for path in once] == [path.read_bytes() for path in again]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 7])
def test_a_handful_of_pictures_is_enough(split, vectors, tmp_path, count):
    rows = np.arange(count)
    paths = write_plots(tmp_path / "run", history=[], split=split.take(rows), vectors=vectors[:count])
    assert all(path.stat().st_size > 1_000 for path in paths)
    data = data_of(paths[3])
    assert len(data["x"]) == len(data["y"]) == len(data["files"]) == count
    assert ("t-SNE" in data["how"]) == (count >= 5)


def test_pictures_of_one_class_and_vectors_that_are_all_the_same_are_drawn(split, tmp_path):
    same = np.full((30, 4), 0.5, np.float32)
    alike = Split(split.paths, np.zeros(30, np.int64))
    data = data_of(write_plots(tmp_path / "run", history=[], split=alike, vectors=same)[3])
    assert data["names"] == ["0"]
    assert len(set(zip(data["x"], data["y"], strict=True))) == 30


def test_vectors_of_one_dimension_have_a_map(split, tmp_path):
    line = np.linspace(-1, 1, 30, dtype=np.float32)[:, None]
    assert len(data_of(write_plots(tmp_path / "run", history=[], split=split, vectors=line)[3])["x"]) == 30


def test_vectors_of_other_pictures_are_refused(split, vectors, tmp_path):
    with pytest.raises(BadInput, match="there are 29 for 30"):
        write_plots(tmp_path / "run", history=[], split=split, vectors=vectors[1:])


def test_a_map_without_room_is_refused(split, vectors, tmp_path):
    with pytest.raises(ConfigError, match="1 picture at least"):
        write_plots(tmp_path / "run", history=[], split=split, vectors=vectors, limit=0)


def test_a_folder_that_cannot_be_made_is_named(split, vectors, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot be written to .*file"):
        write_plots(tmp_path / "file" / "run", history=[], split=split, vectors=vectors)


def test_matplotlib_and_scikit_learn_wait_until_a_plot_is_drawn():
    code = "import embedkit.training.plots.write, sys; print({'matplotlib', 'sklearn'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_drawing_leaves_no_global_state_of_pyplot(tmp_path):
    code = (
        "from pathlib import Path; from embedkit.training.plots.curves import draw_curves; import sys; "
        f"draw_curves(Path({str(tmp_path / 'curves.png')!r}), []); print('matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


# Curves


@pytest.mark.parametrize(
    "history",
    [
        [],
        HISTORY[:1],
        HISTORY[1:2],
        HISTORY[1:-1],
        [{"step": 1, "loss": float("nan"), "rate": None}],
        [{"step": 5, "metrics": {}}],
        [{"step": 5, "metrics": {"recall@1": float("nan")}}, {"step": 6, "metrics": {"top-20": 0.3, "other": 0.1}}],
    ],
    ids=["empty", "start", "step", "steps", "broken", "no figure", "other figures"],
)
def test_any_history_has_curves(history, tmp_path):
    draw_curves(tmp_path / "curves.png", history)
    with Image.open(tmp_path / "curves.png") as image:
        assert image.size == (1152, 888)


def test_a_step_that_a_resumed_run_made_again_counts_once():
    lines = [{"step": step, "loss": float(step), "rate": 0.1} for step in (1, 2, 3)]
    again = [{"step": step, "loss": 10.0 * step, "rate": 0.1} for step in (2, 3, 4)]
    course = course_of([*lines, *again])
    assert course.steps.tolist() == [1, 2, 3, 4]
    assert course.losses.tolist() == [1, 20, 30, 40]


def test_recalls_are_shown_by_k_and_other_figures_only_without_them():
    metrics = {"nmi": 0.9, "recall@10": 0.7, "recall@1": 0.3, "recall@2": 0.4}
    assert list(course_of([{"step": 0, "metrics": metrics}]).metrics) == ["recall@1", "recall@2", "recall@10"]
    assert list(course_of([{"step": 0, "metrics": {"tar@far": 0.9}}]).metrics) == ["tar@far"]


def test_smoothing_is_the_mean_around_each_place_without_what_is_no_number():
    values = np.random.default_rng(0).normal(size=200)
    values[[0, 50, 51]] = np.nan
    plain = [np.nanmean(values[max(0, at - 2) : at + 3]) for at in range(200)]  # 200 / 40 = 5, two on either side
    np.testing.assert_allclose(smoothed(values), plain, rtol=1e-9)


# Distances


def plainly_between(vectors, labels, same):
    return sorted(
        float(np.linalg.norm(vectors[i] - vectors[j]))
        for i, j in combinations(range(len(labels)), 2)
        if (labels[i] == labels[j]) == same
    )


def test_all_pairs_of_a_small_set_are_measured():
    labels = np.random.default_rng(1).integers(0, 6, 40)
    vectors = vectors_of(labels, spread=0.7)
    found = pair_distances(vectors, labels)
    positive, negative = (plainly_between(vectors, labels, same) for same in (True, False))
    assert (found.positives, found.negatives) == (len(positive), len(negative))
    np.testing.assert_allclose(np.sort(found.positive), positive, rtol=1e-5)
    np.testing.assert_allclose(np.sort(found.negative), negative, rtol=1e-5)


def test_the_overlap_is_the_area_under_both_densities():
    labels = np.arange(60) % 5
    found = pair_distances(vectors_of(labels, spread=1.0), labels)
    edges = found.edges
    width = edges[1] - edges[0]
    densities = [np.histogram(part, edges, density=True)[0] for part in (found.positive, found.negative)]
    assert 0.1 < found.overlap < 0.9
    assert found.overlap == pytest.approx(float(np.minimum(*densities).sum() * width), rel=1e-4)


def test_classes_far_apart_do_not_overlap_and_chance_overlaps_wholly():
    labels = np.arange(200) % 4
    assert pair_distances(vectors_of(labels, spread=0.05), labels).overlap == 0
    random = np.random.default_rng(0).permutation(labels)
    assert pair_distances(vectors_of(labels, spread=0.5), random).overlap > 0.9


def test_pairs_are_drawn_with_equal_chances_whatever_the_sizes_of_the_classes():
    labels = np.repeat(np.arange(4), (1, 2, 7, 30))
    labels = np.random.default_rng(5).permutation(labels)
    vectors = vectors_of(labels, spread=1.0)
    every = pair_distances(vectors, labels)
    some = pair_distances(vectors, labels, most=450)  # of 457 positive and 323 negative pairs, 780 in all
    assert (some.positives, some.negatives) == (every.positives, every.negatives) == (457, 323)
    assert len(some.positive) == len(some.negative) == 450
    for drawn, all_of_them in ((some.positive, every.positive), (some.negative, every.negative)):
        near = np.abs(drawn[:, None] - all_of_them).min(axis=1)
        assert near.max() < 1e-6
    many = [pair_distances(vectors, labels, most=450, seed=seed) for seed in range(40)]
    for kind in ("positive", "negative"):
        all_of_them = getattr(every, kind)
        means = np.mean([getattr(one, kind).mean() for one in many])
        assert means == pytest.approx(all_of_them.mean(), abs=4 * all_of_them.std() / np.sqrt(450 * 40))


def test_a_large_set_needs_no_matrix():
    labels = np.arange(200_000) // 5
    vectors = np.random.default_rng(0).normal(size=(200_000, 4)).astype(np.float32)
    found = pair_distances(vectors, labels)
    assert (found.positives, found.negatives) == (400_000, 200_000 * 199_999 // 2 - 400_000)
    assert len(found.positive) == len(found.negative) == 100_000


@pytest.mark.parametrize("labels", [[], [3], [1, 1, 1], [1, 2, 3]], ids=["none", "one", "same", "single"])
def test_without_pairs_of_both_kinds_there_is_no_overlap(labels):
    labels = np.array(labels, np.int64)
    assert np.isnan(pair_distances(np.ones((len(labels), 2), np.float32), labels).overlap)


# Mistakes


def test_the_worst_mistakes_are_those_of_the_whole_matrix():
    random = np.random.default_rng(2)
    labels = np.concatenate([random.integers(0, 12, 90), [50, 51]])  # the last two are alone in their class
    vectors = vectors_of(labels, spread=1.2)
    scores = (vectors @ vectors.T).astype(np.float64)
    np.fill_diagonal(scores, -np.inf)
    expected = []
    for query in range(len(labels)):
        own = np.flatnonzero((labels == labels[query]) & (np.arange(len(labels)) != query))
        first = int(np.argmax(scores[query]))
        if len(own) and labels[first] != labels[query]:
            right = int(own[np.argmax(scores[query, own])])
            rank = int(np.argsort(-scores[query], kind="stable").tolist().index(right)) + 1
            expected.append((scores[query, first] - scores[query, right], query, first, right, rank))
    expected.sort(key=lambda one: -one[0])
    found = worst_mistakes(vectors, labels)
    assert len(found.worst) == 12
    assert found.total == len(expected) > 12
    assert found.queries == 90
    for mistake, (margin, *rows, rank) in zip(found.worst, expected, strict=False):
        assert [mistake.query, mistake.wrong, mistake.right] == rows
        assert mistake.rank == rank > 1
        assert mistake.wrong_score - mistake.right_score == pytest.approx(margin, abs=1e-5)


def test_without_mistakes_the_sheet_says_so():
    labels = np.arange(20) // 4
    found = worst_mistakes(vectors_of(labels, spread=0.01), labels)
    assert (found.worst, found.total, found.queries) == ((), 0, 20)


def test_the_sheet_frames_what_is_wrong_in_red_and_what_is_right_in_green(tmp_path, split, vectors):
    path = write_plots(tmp_path / "run", history=[], split=split, vectors=vectors)[2]
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    mistakes = len(worst_mistakes(vectors, split.labels).worst)
    assert mistakes > 5
    frame = 132**2 - 124**2  # pixels of a frame 4 wide around a square of 132
    for colour in ((220, 38, 38), (22, 163, 74)):
        assert (pixels == colour).all(axis=1).sum() >= mistakes * frame


# Pictures


def test_a_picture_that_cannot_be_read_is_grey(tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    paths = (str(tmp_path / "broken.jpg"), str(tmp_path / "absent.png"))
    for row in range(2):
        tile = small(Split(paths, np.zeros(2, np.int64)), row, 32)
        assert tile.getcolors() == [(32 * 32, (140, 140, 140))]
    found = write_plots(
        tmp_path / "run", history=[], split=Split(paths, np.array([0, 1])), vectors=np.eye(2, dtype=np.float32)
    )
    assert data_of(found[3])["files"] == ["broken.jpg", "absent.png"]


def test_a_picture_is_cut_to_its_box_and_keeps_its_shape(tmp_path):
    image = Image.new("RGB", (100, 100), "white")
    image.paste((200, 0, 0), (20, 10, 80, 40))
    image.save(tmp_path / "boxed.png")
    boxes = np.array([[20, 10, 60, 30], [0, 0, 0, 0]])
    split = Split((str(tmp_path / "boxed.png"),) * 2, np.zeros(2, np.int64), boxes=boxes)
    assert small(split, 0, 48).size == (48, 24)
    assert small(split, 0, 48).getcolors() == [(48 * 24, (200, 0, 0))]
    assert small(split, 1, 48).size == (48, 48)


def test_every_picture_is_in_its_cell_of_the_sheets(tmp_path):
    paths = []
    for place in range(8):
        paths.append(str(tmp_path / f"{place}.png"))
        Image.new("RGB", (40, 20 + 3 * place), (30 * place, 255 - 30 * place, 128)).save(paths[-1])
    many = 200  # of 4,001 pictures each sheet of 48-pixel cells holds 42 × 42
    rows = np.arange(4_001) % 8
    found = sheets_of(Split(tuple(paths), np.zeros(8, np.int64)), rows)
    assert (found.side, found.columns, len(found.uris), len(found.sizes)) == (48, 42, 3, 4_001)
    sheets = [np.asarray(sheet_of(uri), np.int64) for uri in found.uris]
    for cell in np.random.default_rng(0).choice(4_001, many, replace=False):
        sheet, within = divmod(int(cell), 42 * 42)
        down, across = divmod(within, 42)
        width, height = found.sizes[cell]
        middle = sheets[sheet][down * 48 + height // 2, across * 48 + width // 2]
        wanted = 30 * rows[cell], 255 - 30 * rows[cell], 128
        assert np.abs(middle - wanted).max() < 12
        assert (width, height) == (48, round(48 * (20 + 3 * rows[cell]) / 40)) or rows[cell] == 7


# The map


def test_the_map_has_every_picture_with_its_class_file_and_nearest(split, vectors, tmp_path):
    data = data_of(write_plots(tmp_path / "run", history=[], split=split, vectors=vectors)[3])
    assert [data["names"][one] for one in data["classes"]] == [f"thing {row // 3}" for row in range(30)]
    assert data["files"] == [f"picture {row}.png" for row in range(30)]
    assert [max(data[axis]) - min(data[axis]) for axis in "xy"].count(10_000) >= 1
    assert all(0 <= value <= 10_000 for axis in "xy" for value in data[axis])
    assert [list(size) for size in data["sizes"]] == [[96, 96], [96, 48], [32, 96]] * 10
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -2)
    assert data["near"] == np.argsort(-scores, axis=1, kind="stable")[:, :6].tolist()
    assert sheet_of(data["sheets"][0]).size == (21 * 96, 2 * 96)


def test_texts_of_a_catalog_cannot_leave_their_place_in_the_page(tmp_path):
    evil = "</script><script>alert(1)</script><!-- <script> & \u2028 ' \" __DATA__"
    path = tmp_path / "a<b>&c.png"
    picture(0).save(path)
    split = Split((str(path),) * 2, np.array([0, 1]), names=(evil, "tame"))
    page = write_plots(tmp_path / "<i>run", history=[], split=split, vectors=np.eye(2, dtype=np.float32))[3]
    text = page.read_text(encoding="utf-8")
    assert len(re.findall(r"</script", text, re.IGNORECASE)) == 2
    assert "alert(1)</script" not in text
    scripts = Scripts(text).scripts
    assert len(scripts) == 2
    data = json.loads(scripts[0])
    assert (data["names"], data["files"], data["run"]) == ([evil, "tame"], ["a<b>&c.png"] * 2, "<i>run")
    assert "innerHTML" not in scripts[1]


def test_the_page_asks_for_nothing_from_anywhere(split, vectors, tmp_path):
    text = write_plots(tmp_path / "run", history=[], split=split, vectors=vectors)[3].read_text(encoding="utf-8")
    assert Scripts(text).links == []
    assert "default-src 'none'; img-src data:" in text
    assert not re.search(r"https?://|fetch\(|@import|url\(", text)
    assert str(tmp_path) not in text
    assert "prefers-color-scheme: dark" in text


def test_a_map_of_many_pictures_takes_whole_classes():
    labels = np.random.default_rng(0).integers(0, 100, 1_000)
    rows = chosen_rows(labels, 300, seed=4)
    assert 280 < len(rows) <= 300
    assert not set(labels[rows].tolist()) & set(np.delete(labels, rows).tolist())
    assert chosen_rows(labels, 300, seed=4).tolist() == rows.tolist() != chosen_rows(labels, 300, seed=5).tolist()
    assert chosen_rows(labels, 1_000).tolist() == list(range(1_000))


def test_a_map_of_a_few_large_classes_takes_some_of_each():
    labels = np.arange(5_000) % 3
    rows = chosen_rows(labels, 300)
    assert len(set(rows.tolist())) == 300
    assert np.bincount(labels[rows]).min() > 60


def test_pictures_of_a_class_are_neighbours_on_the_map():
    """k nearest neighbours on the map vote for the class, as far as the vectors themselves allow."""
    labels = np.arange(120) % 6
    vectors = vectors_of(labels, spread=0.4)
    places, how = places_of(vectors, seed=1)
    assert how == "Placed by t-SNE of 16 dimensions, perplexity 30, seed 1"
    apart = np.linalg.norm(places[:, None] - places, axis=2)
    np.fill_diagonal(apart, np.inf)
    assert (labels[apart.argmin(axis=1)] == labels).mean() > 0.95
    assert places.min() >= 0
    assert places.max() <= 1


def test_few_pictures_are_placed_along_their_principal_components():
    vectors = np.array([[1, 0, 0], [0, 1, 0], [0.6, 0.8, 0]], np.float32)
    places, how = places_of(vectors)
    assert how == "Placed by PCA of 3 dimensions"
    before, after = (
        [np.linalg.norm(points[i] - points[j]) for i, j in combinations(range(3), 2)] for points in (vectors, places)
    )
    np.testing.assert_allclose(np.array(after) / max(after), np.array(before) / max(before), rtol=1e-5)
