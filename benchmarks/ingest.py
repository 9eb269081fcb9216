"""Ingest beside its limits and beside the loop that people write by hand, in one run.

limits: decoding alone (all cores), encoding alone (all cores, pixels ready in memory).
usual loop: one picture at a time through PIL, torch and `MilvusClient.insert`, ids in a pickle.
Pictures: 1-megapixel JPEGs, smooth noise. Needs the extras `train` and `dev`.
"""

from __future__ import annotations

import argparse
import os
import pickle
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

import embedkit
from embedkit.encoders.load import load_encoder

CORES = os.cpu_count() or 1
BATCH = 32


def make_pictures(folder: Path, count: int) -> list[Path]:
    """JPEGs of 1000 x 1000 pixels, about 50 to 100 kB."""
    folder.mkdir(parents=True, exist_ok=True)

    def one(number: int) -> Path:
        path = folder / f"{number:06}.jpg"
        if not path.exists():
            rng = np.random.default_rng(number)
            image = Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8))
            image.resize((1000, 1000), Image.Resampling.BICUBIC).save(path, quality=90)
        return path

    with ThreadPoolExecutor(CORES) as pool:
        return list(pool.map(one, range(count)))


def rate(count: int, begun: float) -> float:
    """Pictures a second since `begun`."""
    return count / (time.perf_counter() - begun)


def decoding(encoder: Any, paths: list[Path]) -> float:
    """Read and prepare, on all cores."""
    begun = time.perf_counter()
    with ThreadPoolExecutor(CORES) as pool:
        for _ in pool.map(lambda path: encoder.prepare(path.read_bytes()), paths):
            pass
    return rate(len(paths), begun)


def encoding(encoder: Any, paths: list[Path]) -> float:
    """Encode prepared batches, as many at once as the encoder likes."""
    batch = np.stack([encoder.prepare(path.read_bytes()) for path in paths[:BATCH]])
    rounds = max(encoder.concurrency * 2, len(paths) // BATCH)
    with ThreadPoolExecutor(encoder.concurrency) as pool:
        list(pool.map(encoder.encode, [batch] * encoder.concurrency))
        begun = time.perf_counter()
        list(pool.map(encoder.encode, [batch] * rounds))
    return rate(rounds * BATCH, begun)


def ours(folder: Path, backend: str, home: Path, views: dict[str, str]) -> tuple[float, list[float]]:
    """Pictures a second of a whole ingest, and the resident memory in MiB once a second."""
    memory, stop = [], threading.Event()

    def watch() -> None:
        process = psutil.Process()
        while not stop.wait(0.5):
            memory.append(process.memory_info().rss / 2**20)

    with embedkit.connect(backend=backend, home=home) as kit:
        products = kit.collection("bench")
        for spec in views.values():
            kit._resources.encoder(spec)  # loading is not what is measured here
        watcher = threading.Thread(target=watch)
        watcher.start()
        begun = time.perf_counter()
        report = products.ingest(folder, encoder=views)
        speed = rate(report.encoded, begun)
        stop.set()
        watcher.join()
    return speed, memory


def usual_loop(paths: list[Path], home: Path) -> float:
    """What a notebook does."""
    import torch
    from efficientnet_lite_pytorch import EfficientNet
    from pymilvus import MilvusClient

    from embedkit.encoders.effnet_weights import effnet_weights

    model = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=str(effnet_weights())).eval()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    client = MilvusClient(str(home / "usual.db"))
    client.create_collection("usual", dimension=1280, metric_type="COSINE")
    names: dict[int, str] = {}
    begun = time.perf_counter()
    for number, path in enumerate(paths):
        pixels = np.asarray(Image.open(path).convert("RGB").resize((224, 224)))
        x = ((torch.from_numpy(pixels.copy()).float() / 255 - mean) / std).permute(2, 0, 1).unsqueeze(0)
        with torch.no_grad():
            vector = model.extract_features(x).mean(dim=(2, 3))[0]
        client.insert("usual", [{"id": number, "vector": vector.tolist()}])
        names[number] = str(path)
        (home / "ids.pickle").write_bytes(pickle.dumps(names))
    speed = rate(len(paths), begun)
    client.close()
    return speed


def main() -> None:
    """Print rates and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1500)
    parser.add_argument("--usual", type=int, default=120, help="pictures for the slow loop")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="embedkit-bench-") as name:
        home = Path(name)
        folder = home / "pictures"
        paths = make_pictures(folder, options.count)
        encoder = load_encoder("effnet-lite0")
        limits = {"decode": decoding(encoder, paths), "encode": encoding(encoder, paths)}
        print(f"{CORES} cores, {options.count} JPEGs of 1 megapixel, runtime {encoder.runtime}")
        for limit, speed in limits.items():
            print(f"{limit + ' alone':<24} {speed:7.1f} pictures/s")
        slowest = min(limits.values())
        together = 1 / (1 / limits["decode"] + 1 / limits["encode"])
        views = {"image": "effnet-lite0"}
        for label, backend in (("faiss", f"faiss:///{home}/faiss"), ("milvus lite", f"milvus:///{home}/lite.db")):
            speed, memory = ours(folder, backend, home / label.replace(" ", ""), views)
            half = len(memory) // 2
            growth = max(memory[half:], default=0) / max(memory[len(memory) // 10 : half], default=1)
            print(
                f"{'embedkit, ' + label:<24} {speed:7.1f} pictures/s   {speed / slowest:.2f} of the slower limit, "
                f"{speed / together:.2f} of both on the same cores; memory peak {max(memory, default=0):.0f} MiB, "
                f"second half / first half {growth:.2f}"
            )
        slow = usual_loop(paths[: options.usual], home)
        print(f"{'usual loop':<24} {slow:7.1f} pictures/s   embedkit is {speed / slow:.1f} times as fast")


if __name__ == "__main__":
    main()
