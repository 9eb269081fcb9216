"""How long it takes until something happens: `import embedkit`, `embedkit --help`, beside bare Python."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

ROUNDS = 15
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import embedkit": [sys.executable, "-c", "import embedkit"],
    "embedkit --help": [str(Path(sys.executable).with_name("embedkit")), "--help"],
}


def main() -> None:
    """Print the median of every command, in seconds."""
    taken: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(ROUNDS):
        for name, command in COMMANDS.items():
            begun = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            taken[name].append(time.perf_counter() - begun)
    for name, seconds in taken.items():
        print(f"{name:<18} median {statistics.median(seconds):.3f} s   best {min(seconds):.3f} s")


if __name__ == "__main__":
    main()
