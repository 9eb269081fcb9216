"""docs/training.md says what the code does: its tables are compared with the classes, its commands with the options."""

from __future__ import annotations

import dataclasses
import re
import shlex
from pathlib import Path

import click
import pytest
import typer

from embedkit import plugins
from embedkit.training.losses.build import build_loss
from embedkit.training.losses.contract import ClassLoss
from embedkit.training.miners import build_miner, miner_names
from embedkit.training.recipe import TrainingRecipe, list_recipes, read_recipe, tomllib
from embedkit_cli.app import app

PAGE = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")


def table(head):
    """The rows of the table whose first cell is `head`, as lists of cells."""
    lines = PAGE.splitlines()
    (start,) = [number for number, line in enumerate(lines) if line.startswith(f"| {head} |")]
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return rows


def spec_of(cell):
    return cell.strip("`").partition("(")[0]


def documented(name):
    """The spec text that the docstring of a loss's builder starts with."""
    return re.match(r"``(.+?)``", plugins.load("losses", name).__doc__)[1]


def shell_lines():
    blocks = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def test_every_setting_of_a_recipe_is_in_the_table_in_order_with_its_default():
    recipe, expected = TrainingRecipe(), []
    for one in dataclasses.fields(TrainingRecipe):
        value = getattr(recipe, one.name)
        if dataclasses.is_dataclass(value):
            expected += [(f"augment.{inner.name}", getattr(value, inner.name)) for inner in dataclasses.fields(value)]
        else:
            expected.append((one.name, value))
    found = [
        (name.strip("`"), tomllib.loads(f"x = {default.strip('`')}")["x"]) for name, default, _ in table("setting")
    ]
    assert found == expected
    assert [type(value) for _, value in found] == [type(value) for _, value in expected]


def test_every_recipe_that_comes_along_is_in_the_table_with_its_title():
    assert [(name.strip("`"), title) for name, title in table("recipe")] == [
        (name, read_recipe(name).title) for name in list_recipes()
    ]


LOSSES = [*table("loss"), *table("loss of codes")]


def test_every_loss_is_in_one_of_the_two_tables_once():
    assert sorted(spec_of(row[0]) for row in LOSSES) == sorted(plugins.names("losses"))
    for row in LOSSES:
        made = build_loss(spec_of(row[0]), dim=8, classes=4)
        assert made.makes_codes == (row in table("loss of codes"))


@pytest.mark.parametrize("row", LOSSES, ids=lambda row: spec_of(row[0]))
def test_a_loss_is_described_as_it_is(row):
    spec, paper, over, per_class, when = row
    name = spec_of(spec)
    loss = build_loss(name, dim=8, classes=4)
    assert spec.strip("`") == documented(name)
    author_and_year = re.search(r"[A-Z]\w+ \d{4}", plugins.find("losses", name).summary)[0]
    assert author_and_year in paper
    assert over == ("classes" if isinstance(loss, ClassLoss) else "pairs")
    assert int(per_class) == loss.per_class
    assert len(when) > 15


def test_every_loss_of_pictures_and_texts_is_described_as_it_is():
    rows = table("loss of both")
    assert [spec_of(row[0]) for row in rows] == list(plugins.names("joint_losses"))
    for spec, paper, _ in rows:
        plug_in = plugins.find("joint_losses", spec_of(spec))
        assert spec.strip("`") == re.match(r"``(.+?)``", plugins.load("joint_losses", plug_in.name).__doc__)[1]
        assert re.search(r"[A-Z]\w+ \d{4}", plug_in.summary)[0] in paper


@pytest.mark.parametrize("row", table("miner"), ids=lambda row: spec_of(row[0]))
def test_a_miner_of_the_table_is_built_with_the_options_that_it_names(row):
    spec = row[0].strip("`")
    named, plain = build_miner(spec), build_miner(spec_of(spec))
    assert vars(named) == vars(plain)
    assert set(re.findall(r"(\w+)=", spec)) == set(vars(plain))


def test_every_miner_and_every_sampler_is_in_its_table():
    assert sorted(spec_of(row[0]) for row in table("miner")) == sorted(miner_names())
    assert [row[0].strip("`") for row in table("sampler")] == ["balanced", "class", "domains", "pairs"]


def test_every_option_of_the_table_that_names_a_setting_names_one_there_is():
    names = {one.name for one in dataclasses.fields(TrainingRecipe)}
    for options, meaning in table("option"):
        flags = [flag.strip("`").removeprefix("--").replace("-", "_") for flag in options.split(", ")]
        settings = set(re.findall(r"`([a-z_]+)`", meaning))
        assert settings <= names, options
        assert not settings or {"data_name" if flag == "name" else flag for flag in flags} == settings


def test_every_command_is_one_that_the_command_line_takes():
    group = typer.main.get_command(app)
    context = click.Context(group, info_name="embedkit")
    checked = set()
    for line in shell_lines():
        words = shlex.split(line)
        if words[0] == "python":
            assert (Path(__file__).parents[2] / words[1]).is_file(), line
            continue
        start = words.index("embedkit")
        name, arguments = words[start + 1], words[start + 2 :]
        command = group.get_command(context, name)
        assert command is not None or name == "train", line
        if command is not None:
            command.make_context(name, arguments, parent=context)
            checked.add(name)
    assert {"evaluate", "ingest", "search"} <= checked


def test_a_link_leads_to_a_file():
    for target in re.findall(r"\]\(([^)#]+)\)", PAGE):
        assert (Path(__file__).parents[2] / "docs" / target).exists(), target
