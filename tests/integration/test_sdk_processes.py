"""An open kit keeps to its folder and to its process, and what it is asked in a program is typed as it answers."""

from __future__ import annotations

import ast
import collections.abc
import copy
import os
import pickle
import subprocess
import sys
import threading
import typing
from pathlib import Path

import pytest

import embedkit
from embedkit import asynchronous
from embedkit.errors import EmbedkitError

PLAIN = {"image": "plain", "title": "plain(seed=1)"}


@pytest.fixture(params=["faiss:///vectors", "milvus:///vectors.db"], ids=["faiss", "milvus"])
def here(request, plain, tmp_path, monkeypatch):
    """A kit with relative paths, of the folder that the test works in."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    monkeypatch.chdir(tmp_path / "a")
    with embedkit.connect(backend=request.param) as kit:
        yield kit


def test_an_open_kit_stays_where_it_is_when_the_program_goes_elsewhere(here, catalog, tmp_path, monkeypatch):
    products = here.collection("products")
    monkeypatch.chdir(tmp_path / "b")  # nothing was opened yet
    products.ingest(catalog, encoder=PLAIN, limit=6)
    monkeypatch.chdir(tmp_path)
    found = []
    thread = threading.Thread(target=lambda: found.extend(products.search(product="p03", k=3)))  # a connection more
    thread.start()
    thread.join()
    assert len(found) == 3
    assert products.ingest(catalog, limit=6).skipped == 6
    assert products.verify().ok
    assert not list((tmp_path / "b").iterdir())
    assert (tmp_path / "a" / ".embedkit" / "embedkit.db").exists()


def in_a_fork(ask):
    """What a function answers, or the error that it raises, in a fork of this process."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        answer = "another error"
        try:
            answer = repr(ask())
        except EmbedkitError as error:
            answer = f"{type(error).__name__}: {error}"
        finally:
            os.write(writing, answer.encode())
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as answers:
        answer = answers.read().decode()
    assert os.waitpid(child, 0)[1] == 0
    return answer


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_fork_of_an_open_kit_says_to_connect_again(kit, plain, catalog):
    """Shared, the two would write to one connection; an ingest waited for threads that a fork does not have."""
    products = kit.collection("products")
    assert in_a_fork(products.count).startswith("CollectionNotFound")  # nothing was opened: it is the fork's own
    products.ingest(catalog, encoder=PLAIN, limit=4)
    for call in (
        products.count,
        lambda: products.search(text="shoe"),
        lambda: products.ingest(catalog),
        kit.collections,
    ):
        assert "opened before the process forked" in in_a_fork(call)
    assert in_a_fork(kit.close) == "None"
    assert products.count() == 4
    assert products.verify().ok


FORKED = """
import os, sys
import numpy as np
from embedkit.backends.contract import CollectionSpec
from embedkit.backends.open import open_backend

def asked():
    backend = open_backend(sys.argv[1])
    found = [backend.search("c", vectors[:n], 5).ids[:, 0].tolist() for n in (1, 64)]
    backend.close()
    return found == [[0], list(range(64))]

vectors = np.random.default_rng(0).standard_normal((40_000, 128)).astype(np.float32)
backend = open_backend(sys.argv[1])
backend.create(CollectionSpec("c", 128))
backend.upsert("c", np.arange(len(vectors)), vectors)
backend.close()
assert asked()
child = os.fork()
if not child:
    os._exit(0 if asked() else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""  # one question is shared out among threads of ours, many among those of OpenMP; a fork has neither


def test_a_fork_that_connects_again_searches_whatever_its_parent_did_before(faiss_url):
    subprocess.run([sys.executable, "-c", FORKED, faiss_url], check=True, timeout=120)


def test_a_kit_is_not_pickled_and_says_what_to_do_instead(kit, products):
    for one in (kit, products, embedkit.AsyncCollection(products)):
        for send in (pickle.dumps, copy.deepcopy):
            with pytest.raises(TypeError, match="connect there"):
                send(one)


def test_a_picture_is_not_read_by_a_closed_kit(kit, plain, products, catalog):
    products.ingest(catalog, encoder=PLAIN, limit=1)
    product = products.get("p00")
    kit.close()
    with pytest.raises(EmbedkitError, match="closed"):
        products.picture(product)


def test_a_type_checker_sees_coroutines_and_misspelt_names():
    """`asyncio.run` and `create_task` take no other awaitable; a `__getattr__` would make every name right."""
    given = typing.get_type_hints(asynchronous._in_thread)["return"]
    assert typing.get_origin(typing.get_args(given)[1]) is collections.abc.Coroutine
    tree = ast.parse(Path(embedkit.__file__).read_text())
    assert [one.name for one in tree.body if isinstance(one, ast.FunctionDef)] == ["__dir__"]
