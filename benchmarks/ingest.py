"""Ingest beside its limits, and beside the loop that people write by hand, in one run.

The same 2,000 JPEGs of about 1 megapixel, drawn from the demo's emoji, and the same weights in every row:

* the limits: decoding alone on all cores, and the bare runtime on pixels that are in memory already;
* `embedkit ingest` into FAISS, Milvus Lite and a Milvus server, each in a process of its own;
* the usual loop: a torch DataLoader, an eager model, one `MilvusClient.insert` a picture, the ids in a pickle.

Peak memory is that of the process; the FAISS row is repeated with ten times as many pictures, and these are ingested
again, untouched: as a nightly run meets them, and with every one read (`--checksum`).
Needs the extras `demo`, `train` and `dev`.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

from embedkit.encoders.load import load_encoder
from embedkit.testing.servers import milvus_server
from embedkit_cli.demo_catalog import drawings

CORES = os.cpu_count() or 1
BATCH, SIDE = 32, 1_000
ENCODER = "effnet-lite0"


def make_pictures(folder: Path, count: int) -> list[Path]:
    """JPEGs of 1000 x 1000 pixels; those that are there already are kept."""
    import resvg_py

    folder.mkdir(parents=True, exist_ok=True)
    every = drawings()

    def one(number: int) -> Path:
        path = folder / f"{number:06}.jpg"
        if not path.exists():
            svg = str(every[number * len(every) // count])
            data = resvg_py.svg_to_bytes(svg_path=svg, width=SIDE, height=SIDE, background="white")
            Image.open(io.BytesIO(bytes(data))).convert("RGB").save(path, quality=90)
        return path

    with ThreadPoolExecutor(CORES) as pool:
        return list(pool.map(one, range(count)))


def multiplied(paths: list[Path], folder: Path, times: int) -> None:
    """A folder with every picture several times, as links, which a folder source takes for pictures of their own."""
    folder.mkdir()
    for round_ in range(times):
        for path in paths:
            os.link(path, folder / f"{round_:02}-{path.name}")


def decoding(paths: list[Path]) -> float:
    """Pictures a second: read, decode and fit, on all cores."""
    encoder = load_encoder(ENCODER)
    begun = time.perf_counter()
    with ThreadPoolExecutor(CORES) as pool:
        for _ in pool.map(lambda path: encoder.prepare(path.read_bytes()), paths):
            pass
    return len(paths) / (time.perf_counter() - begun)


def encoding(paths: list[Path]) -> float:
    """Pictures a second: the runtime on pixels in memory, as many calls at once as it likes."""
    encoder = load_encoder(ENCODER)
    batch = np.stack([encoder.prepare(path.read_bytes()) for path in paths[:BATCH]])
    rounds = max(encoder.concurrency, len(paths) // BATCH)
    with ThreadPoolExecutor(encoder.concurrency) as pool:
        list(pool.map(encoder.encode, [batch] * encoder.concurrency))
        begun = time.perf_counter()
        list(pool.map(encoder.encode, [batch] * rounds))
    return rounds * BATCH / (time.perf_counter() - begun)


def ours(folder: Path, backend: str, home: Path, *more: str) -> tuple[float, float, float]:
    """`embedkit ingest` as a command: pictures a second, seconds of the whole command, peak memory in MiB."""
    command = [str(Path(sys.executable).with_name("embedkit")), "ingest", str(folder), "--json", "-c", "bench"]
    command += ["--backend", backend, "--encoder", f"image={ENCODER}", *more]
    begun = time.perf_counter()
    environment = {**os.environ, "EMBEDKIT_HOME": str(home)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    peak = 0.0
    while process.poll() is None:  # the kernel's own peak would hold this process's memory, of before the exec
        with suppress(psutil.Error):
            peak = max(peak, psutil.Process(process.pid).memory_info().rss / 2**20)
        time.sleep(0.1)
    seconds = time.perf_counter() - begun
    report = json.loads(process.communicate()[0].splitlines()[-1])
    if process.returncode or report["failed"]:
        sys.exit(f"the ingest into {backend} went wrong: {report}")
    return report["images_per_second"], seconds, peak


class _Pictures:
    """A torch data set as most people write it."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> Any:
        import torch

        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        pixels = np.asarray(Image.open(self.paths[number]).convert("RGB").resize((224, 224), Image.Resampling.BICUBIC))
        return ((torch.from_numpy(pixels.copy()).float() / 255 - mean) / std).permute(2, 0, 1), number


def usual_loop(paths: list[Path], home: Path) -> float:
    """Pictures a second of what a notebook does."""
    import torch
    from efficientnet_lite_pytorch import EfficientNet
    from pymilvus import MilvusClient
    from torch.utils.data import DataLoader

    from embedkit.encoders.effnet_weights import effnet_weights

    model = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=str(effnet_weights())).eval()
    client = MilvusClient(str(home / "usual.db"))
    client.create_collection("usual", dimension=1280, metric_type="COSINE")
    names: dict[int, str] = {}
    begun = time.perf_counter()
    loader: Any = DataLoader(_Pictures(paths), batch_size=BATCH, num_workers=CORES)  # type: ignore[arg-type]
    for pixels, numbers in loader:
        with torch.no_grad():
            vectors = torch.nn.functional.normalize(model.extract_features(pixels).mean(dim=(2, 3)))
        for number, vector in zip(numbers.tolist(), vectors, strict=True):
            client.insert("usual", [{"id": number, "vector": vector.tolist(), "path": str(paths[number])}])
            names[number] = str(paths[number])
        (home / "ids.pickle").write_bytes(pickle.dumps(names))
    speed = len(paths) / (time.perf_counter() - begun)
    client.close()
    return speed


@contextmanager
def backends(home: Path) -> Iterator[dict[str, str]]:
    """URLs of the three, with a Milvus server running."""
    with milvus_server(home / "server") as server:
        yield {
            "FAISS": f"faiss:///{home}/faiss",
            "Milvus Lite": f"milvus:///{home}/lite.db",
            "Milvus server": server.url,
        }


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2_000)
    parser.add_argument("--usual", type=int, default=320, help="pictures for the slow loop")
    parser.add_argument("--times", type=int, default=10, help="0 leaves the memory table out")
    parser.add_argument("--pictures", type=Path, default=Path("bench-data/jpegs"))
    options = parser.parse_args()
    paths = make_pictures(options.pictures, options.count)
    size = sum(path.stat().st_size for path in paths) / len(paths) / 1_000
    print(f"{CORES} cores, {len(paths):,} JPEGs of {SIDE} x {SIDE} pixels and {size:.0f} kB, {ENCODER}\n")
    with tempfile.TemporaryDirectory(prefix="embedkit-bench-", dir=options.pictures.parent) as name:
        home = Path(name)
        encoder = load_encoder(ENCODER)
        limits = {"decoding alone": decoding(paths), f"{encoder.runtime} alone": encoding(paths)}
        slower = min(limits.values())
        print(
            "| what | pictures/s | of the slower limit | whole command, s | peak memory, MiB |\n|---|---|---|---|---|"
        )
        for label, speed in limits.items():
            print(f"| {label} | {speed:.0f} | {speed / slower:.2f} | | |")
        speeds, small = {}, 0.0
        with backends(home) as urls:
            for label, url in urls.items():
                speed, seconds, memory = ours(options.pictures, url, home / label.replace(" ", ""))
                speeds[label], small = speed, small or memory
                print(
                    f"| embedkit ingest, {label} | {speed:.0f} | {speed / slower:.2f} | {seconds:.1f} | {memory:.0f} |"
                )
        usual = usual_loop(paths[:: max(1, len(paths) // options.usual)], home)
        print(f"| the usual loop, Milvus Lite | {usual:.0f} | {usual / slower:.2f} | | |\n")
        print(f"embedkit into Milvus Lite is {speeds['Milvus Lite'] / usual:.1f} times as fast as the usual loop.")
        if options.times:
            multiplied(paths, home / "many", options.times)
            many = (home / "many", f"faiss:///{home}/many-faiss", home / "many-home")
            _, _, memory = ours(*many)
            print(
                f"Peak memory: {small:.0f} MiB for {len(paths):,} pictures, {memory:.0f} MiB for "
                f"{options.times * len(paths):,}, ratio {memory / small:.2f}."
            )
            time.sleep(2)  # what was linked a moment ago counts as still being written
            ours(*many)
            again, all_read = ours(*many)[1], ours(*many, "--checksum")[1]
            print(f"These again, the whole command: untouched {again:.1f} s, every one read {all_read:.1f} s.")


if __name__ == "__main__":
    main()
