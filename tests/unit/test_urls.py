"""No part of a password is ever shown, however carelessly the URL is written."""

from __future__ import annotations

from contextlib import closing

import pytest

from embedkit.errors import BadSource, ConfigError
from embedkit.ingest.sources.mapping import ColumnMapping
from embedkit.ingest.sources.sql import open_source
from embedkit.metadata.store import open_store
from embedkit.urls import place_of, redact

CARELESS = [
    "Zq7Zq",
    "Zq@Zq",
    "Zq/Zq",
    "Zq@Zq/Zq",
    "Zq/Zq@Zq",
    "Zq@Zq@Zq",
    "Zq?Zq",
    "Zq#Zq",
    "Zq:Zq",
    ":Zq",
    "Zq@Zq?Zq",
    "Zq::Zq",
    "77/Zq",
]


@pytest.mark.parametrize("password", CARELESS)
@pytest.mark.parametrize(
    "url",
    ["postgresql://me:{}@db/x", "milvus://me:{}@db:19530/x", "postgresql+psycopg://me@corp:{}@db/x?sslmode=require"],
)
def test_no_part_of_a_password_is_shown(url, password):
    shown = redact(url.format(password))
    assert "Zq" not in shown
    assert "db" in shown


@pytest.mark.parametrize(
    "url",
    [
        "https://host:8080/img@2x.png",
        "https://host/img@2x.png",
        "s3://bucket/a@b/c.png",
        "http://[::1]:80/x",
        "faiss:////srv/a@b",
        "zip://a@b.png::s3://bucket/x.zip",
        "/a/plain@path:x",
    ],
)
def test_what_holds_no_password_stays_as_it_is(url):
    assert redact(url) == url


def test_a_chain_is_redacted_link_by_link():
    assert (
        redact("zip://a::https://me:p@host/x::ftp://you:q@r@host/y")
        == "zip://a::https://me:***@host/x::ftp://you:***@host/y"
    )


def test_a_host_that_holds_the_end_of_a_password_reaches_no_driver():
    with pytest.raises(ConfigError, match="write %40") as raised:
        open_store("postgresql://me:first@second@localhost/x")
    assert "second" not in str(raised.value)
    with pytest.raises(BadSource, match="write %40") as raised:
        open_source("postgresql://me:first@second@localhost/x", mapping=ColumnMapping(), query="select 1")
    assert "second" not in str(raised.value)


def test_places_with_a_host_differ_by_port_and_path():
    assert place_of("milvus://db:1/x") != place_of("milvus://db:1/y")
    assert place_of("oracle://memory") == "oracle://memory"


@pytest.mark.parametrize(
    "url",
    [
        "milvus://root:secret@db:19530/shop",
        "milvus://root:***@db:19530/shop",
        "milvus://root@db:19530/shop",
        "milvus://:se@cr/et@db:19530/shop",
        "MILVUS://DB:19530/shop",
        "milvus://db:19530/shop?token=secret",
    ],
)
def test_a_place_with_a_host_is_the_same_whoever_asks(url):
    assert place_of(url) == "milvus://db:19530/shop"


def test_a_collection_is_found_when_its_password_moves_out_of_the_url(tmp_path):
    with closing(open_store(f"sqlite:///{tmp_path}/e.db")) as store:
        made = store.create_collection("p", backend_url=redact("milvus://root:secret@db:19530/shop"), views=[])
        assert store.find_collection("p", "milvus://DB:19530/shop") == made
        assert store.find_collection("p", "milvus://db:19530/Shop") is None
        assert store.collections("milvus://root@db:19530/shop") == (made,)
