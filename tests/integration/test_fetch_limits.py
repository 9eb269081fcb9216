"""What a hostile or broken host can do to a fetch, against a real server on this machine."""

from __future__ import annotations

import gzip
import socket
import ssl
import threading
import time
import zipfile

import pytest
import trustme

from embedkit.config import FetchSettings
from embedkit.errors import BadImage, FetchFailed, FetchTimeout
from embedkit.ingest.fetch import Fetcher
from tests.webserver import WebServer


@pytest.fixture
def web():
    with WebServer().running() as server:
        yield server


@pytest.fixture
def other():
    with WebServer().running() as server:
        yield server


def fetcher_with(**how):
    return Fetcher(FetchSettings(**{"timeout": 5.0, "retries": 0, **how}))


@pytest.fixture
def fetcher():
    fetcher = fetcher_with(timeout=1.5, max_bytes=20_000)
    yield fetcher
    fetcher.close()


def test_a_host_that_sends_a_byte_now_and_then_runs_out_of_time(web, fetcher):
    begun = time.monotonic()
    with pytest.raises(FetchTimeout, match=r"no answer in 1\.5 s"):
        fetcher.submit(f"{web.url}/drip/1.png").result(20)
    assert 1.4 < time.monotonic() - begun < 6


def test_the_limit_of_bytes_holds_after_decompression(web, fetcher):
    web.files["/bomb.png"] = gzip.compress(bytes(5_000_000))
    web.headers["/bomb.png"] = {"Content-Encoding": "gzip"}
    assert len(web.files["/bomb.png"]) < 20_000
    with pytest.raises(BadImage, match="max_bytes"):
        fetcher.submit(f"{web.url}/bomb.png").result(20)
    web.files["/fair.png"] = gzip.compress(b"picture" * 100)
    web.headers["/fair.png"] = {"Content-Encoding": "gzip"}
    assert fetcher.submit(f"{web.url}/fair.png").result(20).data == b"picture" * 100


def test_a_length_that_lies_gives_an_error_or_no_more_than_was_said(web, fetcher):
    web.files["/long.png"] = web.files["/short.png"] = b"x" * 100
    web.headers["/long.png"] = {"Content-Length": "5000"}
    web.headers["/short.png"] = {"Content-Length": "10"}
    with pytest.raises(FetchTimeout):
        fetcher.submit(f"{web.url}/long.png").result(20)
    assert fetcher.submit(f"{web.url}/short.png").result(20).data == b"x" * 10
    web.headers["/long.png"] = {"Content-Length": "20001"}
    with pytest.raises(BadImage, match="20,001 bytes"):
        fetcher.submit(f"{web.url}/long.png").result(20)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_a_passing_status_is_tried_again(web, status):
    fetcher = fetcher_with(retries=1)
    with pytest.raises(FetchTimeout, match=rf"answers {status} \(after 2 tries\)"):
        fetcher.submit(f"{web.url}/status/{status}").result(20)
    fetcher.close()
    assert web.asked[f"/status/{status}"] == 2


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 501])
def test_a_lasting_status_is_not(web, status):
    fetcher = fetcher_with(retries=3)
    with pytest.raises(FetchFailed, match=str(status)):
        fetcher.submit(f"{web.url}/status/{status}").result(20)
    fetcher.close()
    assert web.asked[f"/status/{status}"] == 1


def test_a_redirect_takes_credentials_to_no_other_host(web, other, fetcher):
    web.files["/1.png"] = other.files["/1.png"] = b"1"
    here = web.url.replace("//", "//me:secret@")
    assert fetcher.submit(f"{here}/to//1.png").result(20).data == b"1"
    assert web.authorizations == ["Basic bWU6c2VjcmV0"] * 2
    assert fetcher.submit(f"{here}/to/{other.url}/1.png").result(20).data == b"1"
    assert other.authorizations == [None]


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://host/1.png", "gopher://x"])
def test_a_redirect_to_another_scheme_fails(web, fetcher, target):
    with pytest.raises((FetchFailed, FetchTimeout)):
        fetcher.submit(f"{web.url}/to/{target}").result(20)


def test_redirects_end(web, fetcher):
    path = "/to/" * 5
    with pytest.raises(FetchFailed):
        fetcher.submit(f"{web.url}{path}").result(20)
    web.files["/1.png"] = b"1"
    loop = "/to//to//to//to//to//to//to//to//to//to//to//to/"
    with pytest.raises(FetchFailed, match="more than 10 times"):
        fetcher.submit(f"{web.url}{loop}/1.png").result(20)


def test_no_host_is_asked_for_more_than_its_share_even_through_redirects(web, other):
    fetcher = fetcher_with(concurrency=32, per_host=3)
    web.pause = other.pause = 0.05
    other.files["/1.png"] = b"1"
    straight = [f"{other.url}/1.png"] * 15
    led = [f"{web.url}/to/{other.url}/1.png"] * 15
    futures = [fetcher.submit(uri) for uri in [*straight, *led]]
    assert [one.result(30).data for one in futures] == [b"1"] * 30
    fetcher.close()
    assert other.most == 3
    assert web.most <= 3


def test_all_hosts_together_have_their_limit(web, other):
    fetcher = fetcher_with(concurrency=4, per_host=4)
    web.pause = other.pause = 0.05
    web.files["/1.png"] = other.files["/1.png"] = b"1"
    futures = [fetcher.submit(f"{host.url}/1.png") for host in (web, other) * 12]
    assert all(one.result(30).data == b"1" for one in futures)
    fetcher.close()
    assert web.most + other.most <= 8
    assert max(web.most, other.most) <= 4


@pytest.mark.parametrize(("number", "error"), [(socket.EAI_NONAME, FetchFailed), (socket.EAI_AGAIN, FetchTimeout)])
def test_no_such_host_fails_at_once_and_a_silent_name_server_is_asked_again(monkeypatch, number, error):
    asked = []

    def getaddrinfo(*args, **_):
        asked.append(args[0])
        raise socket.gaierror(number, "as the resolver says it")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    fetcher = fetcher_with(retries=1)
    with pytest.raises(error, match="no such host" if error is FetchFailed else "2 tries"):
        fetcher.submit("http://shop.example/1.png").result(20)
    fetcher.close()
    assert len(asked) == (1 if error is FetchFailed else 2)


def test_a_certificate_that_does_not_hold_fails_at_once():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(context)  # an authority that nobody knows
    server = WebServer()
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *_: None
    fetcher = fetcher_with(retries=3)
    with server.running(), pytest.raises(FetchFailed, match="certificate does not hold"):
        fetcher.submit(f"https://localhost:{server.server_port}/1.png").result(20)
    fetcher.close()


def test_closing_stops_what_is_on_its_way(web):
    fetcher = fetcher_with(timeout=30.0)
    future = fetcher.submit(f"{web.url}/drip/1.png")
    while not web.asked:
        time.sleep(0.01)
    begun = time.monotonic()
    fetcher.close()
    assert time.monotonic() - begun < 5
    assert future.cancelled() or future.exception(5) is not None
    assert not any(thread.name == "fetch-http" for thread in threading.enumerate())


def test_a_failed_fetch_comes_again_with_retry_failed(web, products, tmp_path, pictures):
    (tmp_path / "t.csv").write_text(f"key,image\na,{web.url}/a.png\n")
    assert products.ingest(tmp_path / "t.csv").failed == 1
    assert [row.stage for row in products.failures()] == ["fetch"]
    pictures(1).save(tmp_path / "a.png")
    web.files["/a.png"] = (tmp_path / "a.png").read_bytes()
    assert products.ingest(retry_failed=True).encoded == 1
    assert products.failures() == []


def test_a_whole_catalog_comes_from_the_web_and_from_a_zip(web, products, tmp_path, pictures, monkeypatch):
    for number in range(4):
        pictures(number).save(tmp_path / f"{number}.png")
    table = "key,image,title\n" + "".join(f"p{n},img/{n}.png,shoe {n}\n" for n in range(4))
    web.files["/shop/products.csv"] = table.encode()
    with zipfile.ZipFile(tmp_path / "shop.zip", "w") as archive:
        archive.writestr("products.csv", table)
        for number in range(4):
            web.files[f"/shop/img/{number}.png"] = (tmp_path / f"{number}.png").read_bytes()
            archive.write(tmp_path / f"{number}.png", f"img/{number}.png")
    assert products.ingest(f"{web.url}/shop/products.csv").encoded == 4
    monkeypatch.chdir(tmp_path)
    report = products.ingest("shop.zip")
    assert (report.encoded, report.updated, report.failed) == (0, 4, 0)
    monkeypatch.chdir("/")
    assert products.picture(products.get("p2")) == (tmp_path / "2.png").read_bytes()
