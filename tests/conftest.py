from __future__ import annotations
import pytest


@pytest.fixture(scope="session")
def milvus_server_url():
    return "milvus://localhost:19530"
