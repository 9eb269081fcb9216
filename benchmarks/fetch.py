"""Pictures fetched by embedkit beside plain clients, and pictures out of archives beside a plain folder.

The web: a server on this machine answers after a pause, as a far one does; embedkit's Fetcher, one
httpx.Client picture after picture, and a bare httpx.AsyncClient with as many at once as embedkit.
Archives: bytes only, read by as many threads as there are cores.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path

import httpx

from embedkit.config import FetchSettings
from embedkit.ingest.fetch import Fetcher


def serve(size: int, pause: float, ends: Connection) -> None:
    """In a process of its own: tell the port, answer every GET after `pause` seconds, tell how many at the end."""
    answered = 0
    head = f"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: {size}\r\n\r\n".encode()
    whole = head + os.urandom(size)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal answered
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                await asyncio.sleep(pause)
                writer.write(whole)
                answered += 1
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def run() -> None:
        listening = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=1024)
        ends.send(listening.sockets[0].getsockname()[1])
        await asyncio.to_thread(ends.recv)
        ends.send(answered)

    asyncio.run(run())


def with_embedkit(urls: list[str], at_once: int) -> int:
    """Through the Fetcher, all to one host."""
    with closing(Fetcher(FetchSettings(concurrency=at_once, per_host=at_once))) as fetcher:
        return sum(len(future.result().data or b"") for future in [fetcher.submit(url) for url in urls])


def one_by_one(urls: list[str], at_once: int) -> int:
    """The loop that everybody writes first."""
    del at_once
    with httpx.Client() as client:
        return sum(len(client.get(url).content) for url in urls)


def bare(urls: list[str], at_once: int) -> int:
    """The library alone: gather behind a semaphore, no checks, no hash, no retries."""

    async def every() -> int:
        turn = asyncio.Semaphore(at_once)
        async with httpx.AsyncClient(limits=httpx.Limits(max_connections=at_once)) as client:

            async def get(url: str) -> int:
                async with turn:
                    return len((await client.get(url)).content)

            return sum(await asyncio.gather(*map(get, urls)))

    return asyncio.run(every())


def rate(work: Callable[[], int], count: int, size: int) -> float:
    """Pictures a second; the bytes must all have come."""
    begun = time.perf_counter()
    got = work()
    seconds = time.perf_counter() - begun
    if got != count * size:
        raise SystemExit(f"{got:,} bytes came instead of {count * size:,}")
    return count / seconds


def web(count: int, size: int, pause: float, at_once: int) -> None:
    """Print the table of the web."""
    ways = {"embedkit": with_embedkit, "bare httpx, as many at once": bare, "httpx one by one": one_by_one}
    here, there = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(size, pause, there), daemon=True)
    server.start()
    port = here.recv()
    urls = [f"http://127.0.0.1:{port}/{number}.jpg" for number in range(count)]
    rates, cpu = {}, {}
    for name, way in ways.items():
        begun = time.process_time()
        rates[name] = rate(lambda way=way: way(urls, at_once), count, size)  # type: ignore[misc]
        cpu[name] = 1e3 * (time.process_time() - begun) / count
    here.send("end")
    if (answered := here.recv()) != count * len(ways):
        raise SystemExit(f"the server was asked {answered:,} times")
    server.join()
    print(f"{count:,} pictures of {size:,} bytes over http, {1e3 * pause:.0f} ms each, {at_once} at once")
    for name, value in rates.items():
        print(
            f"  {name:<28} {value:8,.0f} a second ({cpu[name]:.1f} ms of this process each), "
            f"embedkit is {rates['embedkit'] / value:5.2f} times as fast"
        )


def archives(count: int, size: int) -> None:
    """Print the table of archives."""
    threads = os.cpu_count() or 1
    with tempfile.TemporaryDirectory(prefix="embedkit-bench-") as name:
        folder = Path(name)
        for number in range(count):
            (folder / f"{number}.jpg").write_bytes(os.urandom(size))
        with zipfile.ZipFile(folder / "x.zip", "w", zipfile.ZIP_DEFLATED) as zipped:
            for number in range(count):
                zipped.write(folder / f"{number}.jpg", f"{number}.jpg")
        for path, mode in ((folder / "x.tar", "w"), (folder / "x.tar.gz", "w:gz")):
            with tarfile.open(path, mode) as tarred:  # type: ignore[call-overload]
                for number in range(count):
                    tarred.add(folder / f"{number}.jpg", f"{number}.jpg")
        ways = {"folder": f"{folder}/%d.jpg"}
        ways |= {f"x{end}": f"{end[1:4]}://%d.jpg::{folder}/x{end}" for end in (".zip", ".tar", ".tar.gz")}
        rates: dict[str, float] = {}
        for way, uri in ways.items():
            for _ in range(2):  # the second time from warm caches of the system, a fetcher anew
                with closing(Fetcher(FetchSettings())) as fetcher, ThreadPoolExecutor(threads) as pool:

                    def read(number: int, uri: str = uri, fetcher: Fetcher = fetcher) -> int:
                        return len(fetcher.read_local(uri % number).data or b"")

                    rates[way] = rate(lambda pool=pool, read=read: sum(pool.map(read, range(count))), count, size)  # type: ignore[misc]
    print(f"{count:,} pictures of {size:,} bytes from this machine, {threads} threads, opening included")
    for way, value in rates.items():
        print(f"  {way:<28} {value:8,.0f} a second, {value / rates['folder']:5.2f} of a folder")


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1_000)
    parser.add_argument("--size", type=int, default=20_000)
    parser.add_argument("--pause", type=float, default=0.05, help="seconds before the server answers")
    parser.add_argument("--at-once", type=int, default=64)
    parser.add_argument("--archived", type=int, default=5_000, help="pictures in the archives")
    options = parser.parse_args()
    web(options.count, options.size, options.pause, options.at_once)
    archives(options.archived, options.size)


if __name__ == "__main__":
    main()
