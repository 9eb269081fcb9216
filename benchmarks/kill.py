"""Kills an ingest with SIGKILL at random moments, many times, then lets one run end, and compares both sides.

python benchmarks/kill.py --kills 30                       FAISS, Milvus Lite and a Milvus server
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

import embedkit
from embedkit.testing.servers import milvus_server

SCRIPT = """
import sys, embedkit
with embedkit.connect(backend=sys.argv[1], home=sys.argv[2]) as kit:
    print("ready", flush=True)
    kit.collection("products").ingest(sys.argv[3])
"""


def catalog(folder: Path, count: int) -> None:
    """Small pictures with titles and prices; some broken, some twice."""
    folder.mkdir()
    for number in range(count):
        coarse = np.random.default_rng(number % (count - 5)).integers(0, 256, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((64, 64)).save(folder / f"{number:04}.png")
        (folder / f"{number:04}.json").write_text(json.dumps({"title": f"thing {number}", "price": number}))
    (folder / "broken.png").write_bytes(b"no picture")


def torture(url: str, home: Path, folder: Path, *, count: int, kills: int, seed: int) -> None:
    """Print what happened; raise SystemExit if anything is lost, double or left over."""
    chance = random.Random(seed)
    environment = {**os.environ, "EMBEDKIT_INGEST__BATCH_SIZE": "4"}
    command = [sys.executable, "-c", SCRIPT, url, str(home), str(folder)]
    begun, done, finished = time.monotonic(), 0, 0
    while done < kills:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(chance.uniform(0.3, 2.2))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            done += 1
        else:
            finished += 1
            with embedkit.connect(backend=url, home=home) as kit:  # start over, so that there is work to kill
                kit.collection("products").delete(where=f"price >= {chance.randrange(count // 2)}")
        process.wait()
        process.stdout.close()
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    with embedkit.connect(backend=url, home=home) as kit:
        products = kit.collection("products")
        report, held = products.verify(), products.count()
        found = sum(products.search(product=f"{n:04}.png", k=1) != [] for n in range(count))
        products.drop()
    state = {view: vars_of(check) for view, check in report.views.items()}
    print(f"{url.partition('://')[0]} {url[-24:]}: {done} kills, {finished} ran to the end between")
    print(
        f"  {time.monotonic() - begun:.0f} s; products {held} of {count}, all with vectors: {found == count}; {state}"
    )
    if not report.ok or held != count or found != count:
        sys.exit("the two sides differ")


def vars_of(check: object) -> dict[str, int]:
    """The counts of a ViewCheck."""
    return {name: getattr(check, name) for name in ("count", "missing", "orphaned", "duplicate", "pending")}


def main() -> None:
    """Torture every backend."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--only", choices=["faiss", "lite", "server"], default=None)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="embedkit-kill-") as name:
        root = Path(name)
        catalog(root / "catalog", options.count)
        urls = {"faiss": f"faiss:///{root}/faiss", "lite": f"milvus:///{root}/lite.db"}
        for kind, url in urls.items():
            if options.only in (None, kind):
                torture(url, root / kind, root / "catalog", count=options.count, kills=options.kills, seed=1)
        if options.only in (None, "server"):
            with milvus_server(root / "server-data") as server:
                torture(server.url, root / "server", root / "catalog", count=options.count, kills=options.kills, seed=2)


if __name__ == "__main__":
    main()
