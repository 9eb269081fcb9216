"""A FAISS backend in a folder of the test."""

from __future__ import annotations

import pytest

from embedkit.backends.open import open_backend


@pytest.fixture
def url(tmp_path):
    return f"faiss:///{tmp_path}/faiss"


@pytest.fixture
def backend(url):
    opened = open_backend(url)
    yield opened
    opened.close()
