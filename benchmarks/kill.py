"""Kills ingests with SIGKILL at random moments, lets each come to its end, and compares with one that was left alone.

python benchmarks/kill.py --kills 30                       FAISS, Milvus Lite and a Milvus server

A round is a fresh collection: the ingest is started and killed again and again until one run gets through. After it
`embedkit verify` must find nothing missing, orphaned, double or pending, and every product must have the very id and
the very vector, view by view, that it has after the unbroken run.
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
from collections import Counter
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image

import embedkit
from embedkit.testing.servers import milvus_server

SCRIPT = """
import sys, embedkit
with embedkit.connect(backend=sys.argv[1], home=sys.argv[2]) as kit:
    kit.collection(sys.argv[4]).ingest(sys.argv[3], progress=lambda moment: moment.seen or print("ready", flush=True))
"""
State: TypeAlias = dict[tuple[str, str], tuple[int, bytes]]


def catalog(folder: Path, count: int) -> None:
    """Small pictures with titles and prices; five are there twice, one is broken."""
    folder.mkdir()
    for number in range(count):
        coarse = np.random.default_rng(number % (count - 5)).integers(0, 256, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((64, 64)).save(folder / f"{number:04}.png")
        (folder / f"{number:04}.json").write_text(json.dumps({"title": f"thing {number}", "price": number}))
    (folder / "broken.png").write_bytes(b"no picture")


def state_of(products: embedkit.Collection) -> State:
    """Id and vector of every (key, view), the ids counted from the collection's first."""
    report = products.verify()
    if not report.ok:
        sys.exit(f"store and backend differ: {report}")
    resources = products._resources
    row = resources.store.collection(products.name, resources.backend_url)
    keys = resources.store.keys(row.id)
    ids = resources.store.vector_ids_of(row.id, keys)
    first = min(i for by_view in ids.values() for i in by_view.values())
    state: State = {}
    for view in row.views:
        wanted = {by_view[view.name]: key for key, by_view in ids.items()}
        found = resources.backend.fetch(view.physical, np.array(sorted(wanted)))
        for vector_id, vector in zip(found.ids.tolist(), np.asarray(found.vectors, np.float32), strict=True):
            state[wanted[vector_id], view.name] = (vector_id - first, np.round(vector, 4).tobytes())
    return state


def ingest(arguments: list[str], kill_after: float | None) -> bool:
    """Run one ingest, or kill it; whether it came to its end. Raises SystemExit if it failed by itself."""
    environment = {**os.environ, "EMBEDKIT_INGEST__BATCH_SIZE": "4"}
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, *arguments], env=environment, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()  # the encoders are loaded, the pipeline starts
    try:
        process.wait(kill_after)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
    process.stdout.close()
    if process.returncode not in (0, -signal.SIGKILL):
        sys.exit(f"the ingest ended by itself with {process.returncode}")
    return process.returncode == 0


def torture(label: str, url: str, home: Path, folder: Path, *, kills: int, seed: int) -> None:
    """Print what happened. Raises SystemExit if anything is lost, double, left over or different."""
    chance, begun, done, rounds = random.Random(seed), time.monotonic(), 0, 0
    right: State = {}
    while done < kills or not right:
        name = f"products_{rounds}"
        arguments = [url, str(home), str(folder), name]
        while not ingest(arguments, chance.uniform(0.0, 2.0) if right and done < kills else None):
            done += 1
        with embedkit.connect(backend=url, home=home) as kit:
            products = kit.collection(name)
            state, failed = state_of(products), Counter(row.stage for row in products.failures())
            right = right or state
            if state.keys() != right.keys() or failed != {"decode": 1}:
                sys.exit(f"{label}: other products than after the unbroken run, or other failures: {failed}")
            moved = sum(state[place] != right[place] for place in right)
            if moved:
                sys.exit(f"{label}: {moved} products have another id or vector than after the unbroken run")
            products.drop()
        rounds += 1
    print(
        f"{label}: {done} kills in {rounds - 1} broken ingests of {len(right)} vectors; after each, store and backend "
        f"agree, and ids, keys and vectors are those of the unbroken one ({time.monotonic() - begun:.0f} s)",
        flush=True,
    )


def main() -> None:
    """Torture every backend."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--only", choices=["faiss", "lite", "server"], default=None)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="embedkit-kill-") as name:
        root = Path(name)
        folder = root / "catalog"
        catalog(folder, options.count)
        if options.only in (None, "faiss"):
            torture("FAISS", f"faiss:///{root}/faiss", root / "f", folder, kills=options.kills, seed=1)
        if options.only in (None, "lite"):
            torture("Milvus Lite", f"milvus:///{root}/lite.db", root / "l", folder, kills=options.kills, seed=2)
        if options.only in (None, "server"):
            with milvus_server(root / "server-data") as server:
                torture("Milvus server", server.url, root / "s", folder, kills=options.kills, seed=3)


if __name__ == "__main__":
    main()
