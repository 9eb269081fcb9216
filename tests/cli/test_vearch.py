"""The main job on Vearch, as a user types it; and what a user reads where it cannot be done."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

EMBEDKIT = str(Path(sys.executable).with_name("embedkit"))


@pytest.fixture
def run(tmp_path):
    def call(*arguments, code=0):
        done = subprocess.run(
            [EMBEDKIT, *map(str, arguments)], capture_output=True, text=True, cwd=tmp_path, env=os.environ, check=False
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stdout + done.stderr
        assert not (tmp_path / "err.log").exists(), "the client's import writes it"
        return done

    return call


def last(done):
    return json.loads(done.stdout.strip().splitlines()[-1])


def test_a_catalog_goes_in_is_searched_and_verified(run, catalog, clean_vearch_url):
    on = ("--backend", clean_vearch_url)
    assert last(run("ingest", catalog, *on))["encoded"] == 24
    hits = last(run("search", "--image", catalog / "img" / "05.png", "-w", "price < 30", "--json", *on))["hits"]
    assert hits[0]["key"] == "p05"
    assert all(hit["attributes"]["price"] < 30 for hit in hits)
    assert last(run("verify", "--json", *on))["ok"] is True


def test_what_cannot_be_done_is_said_in_one_sentence(run, catalog, vearch_process):
    port = vearch_process.port
    for url, why in (
        (f"vearch://root:hidden@127.0.0.1:{port}/nowhere", "has no database 'nowhere'"),
        (f"vearch://root:hidden@127.0.0.1:{port}", "names no database"),
    ):
        done = run("ingest", catalog, "--backend", url, code=1)
        assert why in " ".join(done.stderr.split())
        assert "hidden" not in done.stdout + done.stderr


def test_its_capabilities_are_listed_with_what_is_emulated(run):
    (vearch,) = [one for one in last(run("backends", "--json"))["backends"] if one["name"] == "vearch"]
    text = json.dumps(vearch)
    for expected in ("ivf + pq", "ivf + rabitq", "hamming", "hashed tokens", "alias"):
        assert expected in text
