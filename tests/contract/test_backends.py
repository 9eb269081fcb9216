"""Every backend keeps the one contract."""

from __future__ import annotations

import uuid

import pytest

from embedkit.testing.backend import BackendContract


class TestOracle(BackendContract):
    @pytest.fixture
    def url(self):
        return "oracle://contract"


class TestFaiss(BackendContract):
    @pytest.fixture
    def url(self, tmp_path):
        return f"faiss:///{tmp_path}/faiss"


class TestMilvusLite(BackendContract):
    @pytest.fixture
    def url(self, tmp_path):
        return f"milvus:///{tmp_path}/{uuid.uuid4().hex[:8]}.db"


class TestMilvusServer(BackendContract):
    @pytest.fixture
    def url(self, milvus_server_url):
        return milvus_server_url

    @pytest.fixture(autouse=True)
    def _impatient(self, monkeypatch):
        """The server of the tests accepts DISKANN and never builds it; ten minutes are waited for one that may."""
        monkeypatch.setattr("embedkit.backends.milvus.backend._STUCK", 4.0)

    def small_index(self, shape, *, refine):
        """SCANN cuts vectors as it likes."""
        return super().small_index(shape, refine=refine).replace("pq4fs(m=8)", "pq4fs")


class TestVearch(BackendContract):
    @pytest.fixture
    def url(self, vearch_url):
        return vearch_url

    def small_index(self, shape, *, refine):
        """Its product quantiser has 8 bits, always."""
        return super().small_index(shape, refine=refine).replace(", bits=5", "")
