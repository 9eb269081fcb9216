"""docs/search.md says what the code does: its arguments are those of `search`, its commands are taken."""

from __future__ import annotations

import inspect
import re
import shlex
from pathlib import Path

import click
import typer

from embedkit import AsyncCollection, Collection, Question
from embedkit_cli.app import app

PAGE = (Path(__file__).parents[2] / "docs" / "search.md").read_text(encoding="utf-8")


def test_every_argument_of_a_search_is_on_the_page():
    named = set(re.findall(r"`([a-z_]+)`", PAGE))
    arguments = set(inspect.signature(Collection.search).parameters) - {"self", "view", "weights"}
    assert arguments <= named
    assert "--weight image=0.7" in PAGE


def test_many_questions_take_what_one_takes():
    one, many = (set(inspect.signature(call).parameters) for call in (Collection.search, Collection.search_many))
    assert one - many == set(Question.__dataclass_fields__)
    assert many - one == {"questions"}


def test_the_asynchronous_face_has_what_the_page_says(products):
    face = AsyncCollection(products)
    assert all(f"`{name}`" in PAGE for name in vars(face) if name != "collection")


def test_every_command_is_one_that_the_command_line_takes():
    group = typer.main.get_command(app)
    context = click.Context(group, info_name="embedkit")
    lines = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
    for line in lines:
        _, name, *arguments = shlex.split(line)
        group.get_command(context, name).make_context(name, arguments, parent=context)
    assert len(lines) >= 12


def test_a_link_leads_to_a_file():
    for target in re.findall(r"\]\(([^)#]+)\)", PAGE):
        assert (Path(__file__).parents[2] / "docs" / target).exists(), target
