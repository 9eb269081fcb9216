"""From a spec text to a loss."""

from __future__ import annotations

from embedkit.errors import ConfigError
from embedkit.plugins import load, require
from embedkit.specs import parse_spec
from embedkit.training.losses.contract import Loss, PairLoss
from embedkit.training.miners import build_miner

__all__ = ["build_loss"]


def build_loss(text: str, *, dim: int, classes: int = 0, miner: str = "") -> Loss:
    """The loss that a text names, for embeddings of `dim`; `miner` replaces the one it comes with.

    `classes` is asked for by losses that learn something for every class. Raises UnknownName, ConfigError,
    MissingExtra.

    >>> build_loss("contrastive(margin=0.8)", dim=128).normalise
    True
    """
    spec = parse_spec(text, kind="loss")
    require("pytorch_metric_learning", "train", needed_for="Training", package="pytorch-metric-learning")
    loss: Loss = load("losses", spec.name)(spec, dim=dim, classes=classes)
    if miner:
        if not isinstance(loss, PairLoss):
            raise ConfigError(f"The loss {spec.text!r} looks at classes, not at pairs, and takes no miner")
        loss.miner = build_miner(miner)
    return loss
