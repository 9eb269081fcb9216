"""The files of a sentence-transformers folder: how token vectors are pooled, and where texts are cut."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from embedkit.errors import ConfigError

__all__ = ["POOLINGS", "SentenceFiles", "read_sentence_files"]

POOLINGS = ("cls", "max", "mean", "pooler")
_MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


@dataclass(frozen=True, slots=True)
class SentenceFiles:
    """What the files say; the defaults where there are none."""

    pooling: str = "mean"
    max_tokens: int | None = None
    lower: bool = False


def read_sentence_files(read: Callable[[str], Any], *, name: str, pooling: str = "") -> SentenceFiles:
    """`read` gives a JSON file of the model's folder by its path, None where there is none.

    `pooling`: one that is asked for, and taken before what the files say.
    Raises ConfigError for layers that embedkit does not run. Scaling to unit length is done in any case.
    """
    modules = read("modules.json")
    if modules is None:
        return SentenceFiles(pooling or "mean")
    places = {str(module["type"]).rpartition(".")[2]: str(module["path"]) for module in modules}
    if unknown := places.keys() - {"Transformer", "Pooling", "Normalize"}:
        raise ConfigError(
            f"{name!r} has a layer {sorted(unknown)[0]!r} that embedkit does not run; choose another model"
        )
    first = read(_inside(places.get("Transformer", ""), "sentence_bert_config.json")) or {}
    if not pooling and "Pooling" in places:
        pooling = _pooling(read(_inside(places["Pooling"], "config.json")) or {}, name)
    return SentenceFiles(
        pooling=pooling or "mean",
        max_tokens=int(first["max_seq_length"]) if first.get("max_seq_length") else None,
        lower=bool(first.get("do_lower_case", False)),
    )


def _inside(folder: str, file: str) -> str:
    return f"{folder}/{file}" if folder else file


def _pooling(config: Mapping[str, Any], name: str) -> str:
    chosen = config.get("pooling_mode") or [mode for key, mode in _MODES.items() if config.get(key)] or "mean"
    modes = [chosen] if isinstance(chosen, str) else list(chosen)
    # Their only difference is the length of the vector, which becomes 1.
    known = ["mean" if mode == "mean_sqrt_len_tokens" else mode for mode in modes]
    if len(known) != 1 or known[0] not in POOLINGS:
        raise ConfigError(
            f"{name!r} pools its tokens by {' + '.join(modes)}, which embedkit does not do; "
            f"choose another model, or say pooling={'|'.join(POOLINGS)}"
        )
    return known[0]
