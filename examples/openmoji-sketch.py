#!/usr/bin/env python3
"""Makes the data set openmoji-sketch: every OpenMoji drawing as black outlines and in colour, 128 pixels wide.

    python examples/openmoji-sketch.py            into the folder openmoji-sketch
    python examples/openmoji-sketch.py PATH       into another

The drawings come from the npm package openmoji (CC BY-SA 4.0, openmoji.org); resvg-py turns them into pictures.
What lies there already is not made again.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

VERSION = "17.0.0"
FOLDERS = {"sketch": "package/black/svg", "image": "package/color/svg"}
SIDE = 128


def main() -> None:
    """Fetch, unpack, draw."""
    home = Path(sys.argv[1] if len(sys.argv) > 1 else "openmoji-sketch")
    if all((home / name).is_dir() for name in FOLDERS):
        print(f"{home} is there")
        return
    try:
        import resvg_py
    except ModuleNotFoundError:
        sys.exit("resvg-py is not there, which draws; install it with: pip install resvg-py")

    def draw(task: tuple[str, Path]) -> None:
        text, place = task
        place.write_bytes(bytes(resvg_py.svg_to_bytes(svg_string=text, width=SIDE, height=SIDE, background="white")))

    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".draft", dir=home) as draft, ThreadPoolExecutor(os.cpu_count()) as pool:
        for name in FOLDERS:
            (Path(draft) / name).mkdir()
        for _ in pool.map(draw, drawings(packed(Path(draft)), Path(draft))):
            pass
        for name in FOLDERS:
            if not (home / name).is_dir():
                shutil.move(Path(draft) / name, home / name)  # whole, or not at all
    (home / "LICENSE.txt").write_text("Pictures: OpenMoji 17, openmoji.org, CC BY-SA 4.0\n", encoding="utf-8")
    print(f"{home} is complete; look at it with: embedkit datasets check {home}")


def packed(folder: Path) -> Path:
    """The package as a file, fetched by npm."""
    npm = shutil.which("npm")
    if npm is None:
        sys.exit("npm is not there, which fetches the package; install Node.js with npm and run this again")
    print(f"fetching openmoji {VERSION}")
    fetched = subprocess.run([npm, "pack", "--silent", f"openmoji@{VERSION}"], cwd=folder, stdout=subprocess.DEVNULL)
    if fetched.returncode:
        sys.exit(f"openmoji {VERSION} could not be fetched; see what npm says above and run this again")
    return folder / f"openmoji-{VERSION}.tgz"


def drawings(package: Path, folder: Path) -> Iterator[tuple[str, Path]]:
    """Every SVG of both kinds, and the picture that it becomes."""
    kinds = {inside: name for name, inside in FOLDERS.items()}
    with tarfile.open(package) as files:
        for member in files:
            head, _, name = member.name.rpartition("/")
            if head in kinds and name.endswith(".svg") and (opened := files.extractfile(member)) is not None:
                yield opened.read().decode(), folder / kinds[head] / f"{Path(name).stem}.png"


if __name__ == "__main__":
    main()
