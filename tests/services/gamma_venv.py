"""The Python that has the Gamma engine: a virtual environment of its own, made once.

The engine's package is called ``vearch``, as is the import name of the official client, and it wants CPython 3.11 and
old releases of NumPy and flatbuffers. ``make`` runs this file, and the tests call it, so it is there either way.
"""

from __future__ import annotations

import fcntl
import platform
import shutil
import subprocess
import sys
from pathlib import Path

PACKAGES = ("vearch==3.3.2", "numpy==1.26.4", "flatbuffers==1.12")
_FOLDER = Path(__file__).resolve().parents[2] / ".venv-gamma"


def why_not() -> str:
    """Why there can be no engine on this machine; '' if there can."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return f"the Gamma engine is built for Linux on x86_64, and this is {platform.system()} on {platform.machine()}"
    if _base() is None:
        return "the Gamma engine needs CPython 3.11, and there is no python3.11 here"
    return ""


def _base() -> str | None:
    return sys.executable if sys.version_info[:2] == (3, 11) else shutil.which("python3.11")


def gamma_python() -> str:
    """The interpreter. Makes the environment if need be; raises CalledProcessError when a package cannot be had."""
    python, ready = _FOLDER / "bin/python", _FOLDER / "ready"
    _FOLDER.mkdir(exist_ok=True)
    with (_FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not ready.exists() or ready.read_text() != "\n".join(PACKAGES):
            subprocess.run([str(_base()), "-m", "venv", str(_FOLDER)], check=True)
            subprocess.run([str(python), "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
            ready.write_text("\n".join(PACKAGES))
    return str(python)


if __name__ == "__main__":
    sys.stdout.write(f"{why_not() or gamma_python()}\n")
