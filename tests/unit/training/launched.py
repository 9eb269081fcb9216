"""What each of several processes runs, started by ``accelerate launch``."""

from __future__ import annotations

import sys
from pathlib import Path

from embedkit.training.recipe import read_recipe
from embedkit.training.train import train_encoder

if __name__ == "__main__":
    home = Path(sys.argv[1])
    train_encoder(read_recipe(str(home / "recipe.toml")), home / "run", plots=False)
