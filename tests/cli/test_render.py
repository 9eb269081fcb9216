"""What people see of texts that a catalog may make as long as it likes."""

from __future__ import annotations

import re
import sys
from types import SimpleNamespace

import pytest

from embedkit import Hit, Product
from embedkit_cli import render, sheet

LONG = Product("k" * 900 + "-key", "t" * 900 + " of leather", None, {})


@pytest.fixture
def hits():
    return [Hit(LONG, 0.5, 0.5, 1, "image")]


def test_long_keys_and_titles_are_cut_in_a_terminal_and_nowhere_else(hits, capsys, monkeypatch):
    render.hits_table(hits)
    assert f"{LONG.key}\t{LONG.title}" in capsys.readouterr().out
    assert render.hits_as_dicts(hits)[0]["title"] == LONG.title
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    render.hits_table(hits)
    shown = capsys.readouterr().out
    assert len(shown.splitlines()) == 5
    assert "k…" in shown
    assert "-key " in shown
    assert " of leather " in shown


def test_failures_show_the_reason_of_a_long_address_in_a_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "600")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    why = f"{'a/' * 2_500}b.png: file name too long"
    render.table(["key", "where", "stage", "why"], [("k" * 5_000, "t.jsonl row 1", "fetch", why)])
    shown = capsys.readouterr().out
    assert "b.png: file name too long" in shown
    assert len(shown.splitlines()) == 5


def test_a_bar_shows_its_numbers_and_all_of_a_long_note_in_a_narrow_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    why = (
        "waiting: Milvus at http://localhost:19530 does not answer (failed to connect in 10 s); is the server running?"
    )
    with render.progress_bar("ingest") as show:
        show(SimpleNamespace(total=90, seen=40, failed=2, note=why))
    end = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", capsys.readouterr().err).split()
    assert {"ingest", "40/90", "failed", *why.split()} <= set(end)


def test_a_page_of_answers_has_a_short_title_and_all_of_it_in_a_tooltip(hits, tmp_path):
    sheet.write(tmp_path / "page.html", [sheet.Answer("shoes", None, hits)], lambda _: None)
    page = (tmp_path / "page.html").read_text()
    assert page.count(LONG.title) == 1
    assert f'title="{LONG.title}"' in page
    assert f">{render.short(LONG.title, 80)}<" in page
