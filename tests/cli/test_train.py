"""`train` and `recipes` as a user meets them: one run from the first line to a search."""

from __future__ import annotations

import json
import signal
import subprocess
import time

import pytest

from tests.cli.test_commands import EMBEDKIT, last, run
from tests.conftest import picture

__all__ = ["run"]

SMALL = ["--encoder", "effnet-lite0(size=64)", "--dim", "16", "--batch", "12", "--set", "validate=20"]


@pytest.fixture
def shop(tmp_path):
    """Eight classes of four pictures: a pattern, in four brightnesses."""
    for place in range(8):
        folder = tmp_path / "shop" / f"thing {place}"
        folder.mkdir(parents=True)
        for copy in range(4):
            picture(place).point(lambda value, copy=copy: value * (8 - copy) // 8).save(folder / f"{copy}.png")
    return tmp_path / "shop"


def test_a_run_is_trained_judged_ingested_and_searched(run, shop, tmp_path):
    done = run(
        "train", "--data", "shop", "--loss", "npair", "--steps", "4", "--out", "runs/npair", "--seed", "3", *SMALL
    )
    assert "recall@1\t" in done.stdout
    assert "epoch 2, batch 4: loss" in done.stderr
    assert "4 batches" in done.stderr
    assert {path.name for path in (tmp_path / "runs/npair/plots").iterdir()} == {
        "curves.png",
        "distances.png",
        "map.html",
        "mistakes.png",
    }
    judged = last(run("evaluate", "runs/npair", "--data", "shop", "--json"))
    assert judged["dim"] == 16
    assert last(run("ingest", "shop", "-c", "c", "--encoder", "image=runs/npair"))["encoded"] == 32
    hits = last(run("search", "-c", "c", "--image", shop / "thing 0/0.png", "-k", "3", "--json"))["hits"]
    assert hits[0]["key"] == "thing 0/0.png"
    report = json.loads((tmp_path / "runs/npair/report.json").read_text())
    assert (report["loss"], report["steps"]) == ("npair", 4)


def test_pictures_and_words_are_trained_into_one_space_and_find_each_other(run, shop, tmp_path):
    rows = [(f"shop/thing {place}/{copy}.png", f"thing number {place}") for place in range(8) for copy in range(4)]
    (tmp_path / "captions.csv").write_text("path,caption\n" + "\n".join(",".join(row) for row in rows))
    (tmp_path / "products.jsonl").write_text(
        "\n".join(json.dumps({"key": path, "image": path, "title": title}) for path, title in rows[::4])
    )
    found = last(run("datasets", "check", "captions.csv", "--json"))
    assert (found["name"], found["splits"][0]["captions"]) == ("captions", 7)
    small = ["--encoder", "effnet-lite0(size=64)", "--dim", "16", "--batch", "12", "--steps", "3", "--no-plots"]
    done = run("train", "--task", "image-text", "--data", "captions.csv", "--out", "runs/joint", *small)
    assert "t2i-recall@10\t" in done.stdout
    judged = last(run("evaluate", "runs/joint", "--data", "captions.csv", "--json"))
    assert {"i2t-recall@1", "t2i-median-rank"} <= judged.keys()
    views = ["--encoder", "image=runs/joint", "--encoder", "title=runs/joint"]
    assert last(run("ingest", "products.jsonl", "-c", "c", *views))["encoded"] == 8  # products
    titled = last(run("search", "-c", "c", "--text", "thing number 5", "-k", "1", "--json"))["hits"]
    assert titled[0]["key"] == "shop/thing 5/0.png"
    by_words = last(run("search", "-c", "c", "--text", "thing number 5", "--view", "image", "-k", "8", "--json"))[
        "hits"
    ]
    by_picture = last(run("search", "-c", "c", "--image", rows[0][0], "--view", "title", "-k", "8", "--json"))["hits"]
    assert len({hit["key"] for hit in by_words}) == len({hit["key"] for hit in by_picture}) == 8


def test_a_run_that_is_stopped_goes_on(run, shop, tmp_path):
    arguments = ["train", "--data", "shop", "--steps", "500", "--out", "run", "--no-plots", *SMALL]
    process = subprocess.Popen([EMBEDKIT, *arguments], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    history = tmp_path / "run" / "history.jsonl"
    while process.poll() is None and not (history.is_file() and '"loss"' in history.read_text()):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, shown = process.communicate(timeout=60)
    assert process.returncode == 130, shown
    assert "Traceback" not in shown
    path = tmp_path / "run" / "recipe.toml"
    before = sum('"loss"' in line for line in history.read_text().splitlines())
    path.write_text(path.read_text().replace("steps = 500", f"steps = {before + 1}"))
    assert last(run("train", "--resume", "--out", "run", "--no-plots", "--json"))["steps"] == before + 1
    assert "keeps its recipe" in run("train", "--resume", "--out", "run", "--steps", "9", code=2).stderr


def test_what_cannot_be_trained_is_one_sentence(run, shop):
    def refused(*arguments):
        return run("train", "--out", "run", *arguments, code=1).stderr

    assert "did you mean 'npair'" in refused("--data", "shop", "--loss", "npiar")
    assert "bits = 20 is not a multiple of 8" in refused("--data", "shop", "--loss", "hashnet", "--bits", "20")
    assert "say how long they are" in refused("--data", "shop", "--loss", "hashnet")
    assert "did you mean rate" in refused("--data", "shop", "--set", "rates=3")
    assert "The setting 'rate' is '', not a number" in refused("--data", "shop", "--set", "rate=")
    assert "no data set at 'nowhere'" in refused("--data", "nowhere", "--set", "start=")  # which is unset
    assert "give the path" in refused()
    assert "no data set at 'nowhere'" in refused("--data", "nowhere")
    assert "did you mean" in refused("--recipe", "cub200-margins")
    assert "exists" in refused("--data", "shop", "--out", "shop")


def test_the_recipes_that_come_along_are_listed(run):
    names = [one["name"] for one in last(run("recipes", "--json"))["recipes"]]
    assert names == sorted(names)
    assert {"cub200-margin", "emoji-npair", "market1501-batchhard"} <= set(names)
    assert "cub200-margin" in run("recipes").stdout
