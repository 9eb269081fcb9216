"""The examples do what their first lines say; the network is stood in for by a program that packs what lies here."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from embedkit.training.datasets.open import check_dataset
from tests.unit.training import trees

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPT = EXAMPLES / "emoji-zs.sh"
DRAWING = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 72 72">'
    '<rect x="18" y="{y}" width="36" height="30" {style}/></svg>'
)
PACK = """#!/bin/sh
echo "$3" >> {log}
name=${{3%@*}}
[ -d {stock}/$name ] || exit 1
tar -czf $name-${{3#*@}}.tgz -C {stock}/$name package
"""


@pytest.fixture
def tools(tmp_path):
    """A folder with the programs that the script needs, npm not among them."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sh", "tar", "gzip", "mkdir", "rm", "mv"):
        (folder / name).symlink_to(shutil.which(name))
    return folder


@pytest.fixture
def npm(tools, tmp_path):
    """`npm pack` for a small emoji-zs; returns what was asked of it."""
    packed = trees.emoji(tmp_path / "made")
    for home in packed.glob("emoji-datasource-*"):
        inside = home / "package" if (home / "package").is_dir() else home
        shutil.copytree(inside, tmp_path / "stock" / home.name / "package")
    log = tmp_path / "asked"
    log.touch()
    (tools / "npm").write_text(PACK.format(log=log, stock=tmp_path / "stock"))
    (tools / "npm").chmod(0o755)
    return lambda: log.read_text().split()


def run(tools, home):
    return subprocess.run(["sh", SCRIPT, home], env={"PATH": str(tools)}, capture_output=True, text=True, check=False)


def test_the_script_makes_a_data_set_that_is_known_by_its_files_and_fetches_nothing_twice(tools, npm, tmp_path):
    home = tmp_path / "a b" / "emoji-zs"
    done = run(tools, home)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(npm()) == [f"emoji-datasource-{v}@16.0.0" for v in ("apple", "facebook", "google", "twitter")]
    found = check_dataset(home)
    assert (found.name, found.absent, found.missing) == ("emoji-zs", (), 0)
    assert sum(split.images for split in found.splits) == 4 * 5 - 1
    assert run(tools, home).returncode == 0
    assert len(npm()) == 4


def test_without_npm_the_script_says_what_to_install(tools, tmp_path):
    done = run(tools, tmp_path / "emoji-zs")
    assert done.returncode == 1
    assert "install Node.js with npm" in done.stderr
    assert not (tmp_path / "emoji-zs").exists()


def test_a_package_that_does_not_come_leaves_nothing_half_and_the_next_run_fetches_the_rest(tools, npm, tmp_path):
    shutil.move(tmp_path / "stock" / "emoji-datasource-twitter", tmp_path / "gone")
    home = tmp_path / "emoji-zs"
    done = run(tools, home)
    assert done.returncode == 1
    assert "emoji-datasource-twitter 16.0.0 could not be fetched" in done.stderr
    assert sorted(one.name for one in home.iterdir()) == ["emoji-datasource-apple", "emoji-datasource-google"]
    shutil.move(tmp_path / "gone", tmp_path / "stock" / "emoji-datasource-twitter")
    assert run(tools, home).returncode == 0
    assert npm().count("emoji-datasource-apple@16.0.0") == 1


# -- openmoji-sketch -------------------------------------------------------------------------------------------------


@pytest.fixture
def openmoji(tools, tmp_path):
    """`npm pack` for four drawings, of which the first two differ in colour alone; returns what was asked of it."""
    shapes = {"1F590-1F3FB": (4, "tan"), "1F590-1F3FC": (4, "peru"), "1F7E5": (12, "red"), "1F7E6": (20, "blue")}
    for name, (y, colour) in shapes.items():
        for kind, style in (("black", 'fill="none" stroke="#000"'), ("color", f'fill="{colour}" stroke="#000"')):
            folder = tmp_path / "stock" / "openmoji" / "package" / kind / "svg"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{name}.svg").write_text(DRAWING.format(y=y, style=style))
    log = tmp_path / "asked"
    log.touch()
    (tools / "npm").write_text(PACK.format(log=log, stock=tmp_path / "stock"))
    (tools / "npm").chmod(0o755)
    return lambda: log.read_text().split()


def drawn(tools, home):
    script = [sys.executable, EXAMPLES / "openmoji-sketch.py", home]
    return subprocess.run(script, env={"PATH": str(tools)}, capture_output=True, text=True, check=False)


def test_outlines_and_coloured_drawings_become_a_data_set_once(tools, openmoji, tmp_path):
    home = tmp_path / "a b" / "openmoji-sketch"
    done = drawn(tools, home)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(one.name for one in home.iterdir()) == ["LICENSE.txt", "image", "sketch"]
    outline, coloured = (Image.open(home / kind / "1F7E5.png").convert("RGB") for kind in ("sketch", "image"))
    assert outline.size == coloured.size == (128, 128)
    assert (outline.getpixel((64, 50)), coloured.getpixel((64, 50))) == ((255, 255, 255), (255, 0, 0))
    found = check_dataset(home)
    assert (found.name, found.absent, found.missing) == ("openmoji-sketch", (), 0)
    assert sum(split.classes for split in found.splits if split.name != "gallery") == 3
    assert drawn(tools, home).returncode == 0
    assert openmoji() == ["openmoji@17.0.0"]


def test_without_npm_or_without_the_package_nothing_half_is_left(tools, openmoji, tmp_path):
    shutil.move(tmp_path / "stock" / "openmoji", tmp_path / "gone")
    done = drawn(tools, tmp_path / "d")
    assert (done.returncode, "openmoji 17.0.0 could not be fetched" in done.stderr) == (1, True)
    assert not list((tmp_path / "d").iterdir())
    (tools / "npm").unlink()
    assert "install Node.js with npm" in drawn(tools, tmp_path / "d").stderr
