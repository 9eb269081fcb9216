"""The registry: a name, where its code lives, and what installs it.

The built-in tables are data, so that listing costs no import; third parties add to
them by entry points of the groups ``embedkit.backends``, ``embedkit.encoders``,
``embedkit.losses``, ``embedkit.joint_losses`` and ``embedkit.sources``.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any, Literal

from embedkit.errors import ConfigError, MissingExtra, UnknownName

__all__ = ["BUILT_IN", "Group", "PlugIn", "find", "load", "names", "require"]

Group = Literal["backends", "encoders", "joint_losses", "losses", "sources"]
_SINGULAR: dict[Group, str] = {
    "backends": "backend",
    "encoders": "encoder",
    "joint_losses": "loss of pictures and texts",
    "losses": "loss",
    "sources": "source",
}


@dataclass(frozen=True, slots=True)
class PlugIn:
    """`target` is ``module:object``; `extra` is the extra that installs what it needs, or ''."""

    name: str
    target: str
    summary: str
    extra: str = ""


BUILT_IN: dict[Group, tuple[PlugIn, ...]] = {
    "backends": (
        PlugIn(
            "faiss", "embedkit.backends.faiss.factory:FACTORY", "memory-mapped files on this machine, searched by FAISS"
        ),
        PlugIn(
            "milvus", "embedkit.backends.milvus.factory:FACTORY", "Milvus: embedded Lite in a file, or a server by URL"
        ),
        PlugIn("oracle", "embedkit.backends.oracle.factory:FACTORY", "exact NumPy in memory, for tests and comparison"),
        PlugIn("vearch", "embedkit.backends.vearch.factory:FACTORY", "a Vearch cluster, by its router's URL", "vearch"),
    ),
    "encoders": (
        PlugIn(
            "effnet-lite0",
            "embedkit.encoders.builtin:effnet_lite0",
            "images: EfficientNet-Lite0, ImageNet weights, offline",
        ),
        PlugIn("minilm", "embedkit.encoders.builtin:minilm", "text: all-MiniLM-L6-v2, offline"),
        PlugIn(
            "torchvision",
            "embedkit.encoders.torchvision_models:build",
            "images: any torchvision backbone, torchvision:resnet50",
            "train",
        ),
        PlugIn(
            "hf",
            "embedkit.encoders.huggingface:build",
            "images or text: any Hugging Face vision, CLIP-like or sentence model",
            "train",
        ),
        PlugIn(
            "floats",
            "embedkit.encoders.floats:build",
            "what an encoder of codes makes them of, by the same network: floats:runs/h64",
        ),
    ),
    "joint_losses": (
        PlugIn("clip", "embedkit.training.losses.joint:clip", "symmetric cross-entropy, Radford 2021", "train"),
        PlugIn("dcmh", "embedkit.training.losses.joint_codes:dcmh", "codes of both, Jiang & Li 2017", "train"),
        PlugIn(
            "instance", "embedkit.training.losses.joint:instance", "one classifier for both towers, Zheng 2020", "train"
        ),
        PlugIn("siglip", "embedkit.training.losses.joint:siglip", "sigmoid over all pairs, Zhai 2023", "train"),
        PlugIn("vse++", "embedkit.training.losses.joint:vse_plus_plus", "max of hinges, Faghri 2018", "train"),
    ),
    "losses": (
        PlugIn("angular", "embedkit.training.losses.npair:angular", "N-pair + angular loss, Wang 2017", "train"),
        PlugIn("arcface", "embedkit.training.losses.angles:arcface", "additive angular margin, Deng 2019", "train"),
        PlugIn(
            "batch-hard",
            "embedkit.training.losses.triplets:batch_hard",
            "hardest positive and negative, Hermans 2017",
            "train",
        ),
        PlugIn("circle", "embedkit.training.losses.library:circle", "circle loss, Sun 2020", "train"),
        PlugIn(
            "cnnh",
            "embedkit.training.losses.hash_centres:cnnh",
            "binary codes: two stages by factorisation, Xia 2014",
            "train",
        ),
        PlugIn(
            "contrastive",
            "embedkit.training.losses.contrastive:contrastive",
            "contrastive, DrLIM, Hadsell 2006",
            "train",
        ),
        PlugIn("cosface", "embedkit.training.losses.angles:cosface", "additive cosine margin, Wang 2018", "train"),
        PlugIn(
            "csq", "embedkit.training.losses.hash_centres:csq", "binary codes: central similarity, Yuan 2020", "train"
        ),
        PlugIn(
            "daml",
            "embedkit.training.losses.daml:daml",
            "learned hard negatives on top of another loss, Duan 2018",
            "train",
        ),
        PlugIn(
            "dch", "embedkit.training.losses.hash_pairs:dch", "binary codes: Cauchy cross-entropy, Cao 2018", "train"
        ),
        PlugIn(
            "deepid2",
            "embedkit.training.losses.contrastive:deepid2",
            "identification + verification, Sun 2014",
            "train",
        ),
        PlugIn(
            "dlbhc",
            "embedkit.training.losses.hash_classes:dlbhc",
            "binary codes: latent layer of a classifier, Lin 2015",
            "train",
        ),
        PlugIn(
            "dnnh",
            "embedkit.training.losses.hash_pairs:dnnh",
            "binary codes: triplets, divide-and-encode, Lai 2015",
            "train",
        ),
        PlugIn("dpn", "embedkit.training.losses.hash_centres:dpn", "binary codes: polarisation, Fan 2020", "train"),
        PlugIn(
            "dpsh", "embedkit.training.losses.hash_pairs:dpsh", "binary codes: pairwise likelihood, Li 2016", "train"
        ),
        PlugIn(
            "dsh",
            "embedkit.training.losses.hash_pairs:dsh",
            "binary codes: contrastive with regulariser, Liu 2016",
            "train",
        ),
        PlugIn(
            "greedyhash",
            "embedkit.training.losses.hash_classes:greedyhash",
            "binary codes: sign in the forward pass, Su 2018",
            "train",
        ),
        PlugIn(
            "hashnet",
            "embedkit.training.losses.hash_pairs:hashnet",
            "binary codes: weighted pairs by continuation, Cao 2017",
            "train",
        ),
        PlugIn("lifted", "embedkit.training.losses.lifted:lifted", "lifted structure, Song 2016", "train"),
        PlugIn(
            "margin",
            "embedkit.training.losses.margin:margin",
            "margin loss, distance-weighted sampling, Wu 2017",
            "train",
        ),
        PlugIn(
            "multi-similarity",
            "embedkit.training.losses.library:multi_similarity",
            "multi-similarity with its miner, Wang 2019",
            "train",
        ),
        PlugIn(
            "npair", "embedkit.training.losses.npair:npair", "multi-class N-pair with norm penalty, Sohn 2016", "train"
        ),
        PlugIn(
            "nt-xent",
            "embedkit.training.losses.ranking:ntxent",
            "normalised temperature-scaled cross-entropy, Chen 2020",
            "train",
        ),
        PlugIn(
            "orthohash",
            "embedkit.training.losses.hash_centres:orthohash",
            "binary codes: cosine to orthogonal codes, Hoe 2021",
            "train",
        ),
        PlugIn("proxy-anchor", "embedkit.training.losses.library:proxy_anchor", "proxy-anchor, Kim 2020", "train"),
        PlugIn(
            "recall-at-k", "embedkit.training.losses.ranking:recall_at_k", "Recall@k surrogate, Patel 2022", "train"
        ),
        PlugIn(
            "semi-hard",
            "embedkit.training.losses.triplets:facenet",
            "triplets with semi-hard negatives, FaceNet, Schroff 2015",
            "train",
        ),
        PlugIn("soft-triple", "embedkit.training.losses.proxies:soft_triple", "SoftTriple, Qian 2019", "train"),
        PlugIn(
            "sphereface",
            "embedkit.training.losses.angles:sphereface",
            "multiplicative angular margin, Liu 2017",
            "train",
        ),
        PlugIn(
            "subcentre-arcface",
            "embedkit.training.losses.angles:subcentre_arcface",
            "ArcFace with several centres a class, Deng 2020",
            "train",
        ),
        PlugIn(
            "subic", "embedkit.training.losses.hash_classes:subic", "binary codes: one-hot blocks, Jain 2017", "train"
        ),
        PlugIn("supcon", "embedkit.training.losses.library:supcon", "supervised contrastive, Khosla 2020", "train"),
        PlugIn(
            "triplet", "embedkit.training.losses.triplets:triplet", "all triplets, Deep Ranking, Wang 2014", "train"
        ),
    ),
    "sources": (
        PlugIn("folder", "embedkit.ingest.sources.folder:open_source", "a folder tree of pictures"),
        PlugIn("csv", "embedkit.ingest.sources.tables:open_csv", "CSV or TSV, one product a row"),
        PlugIn("jsonl", "embedkit.ingest.sources.tables:open_jsonl", "JSON Lines, one product a line"),
        PlugIn("parquet", "embedkit.ingest.sources.tables:open_parquet", "Parquet, one product a row"),
        PlugIn("sql", "embedkit.ingest.sources.sql:open_source", "any SQL query through SQLAlchemy"),
    ),
}


@cache
def _table(group: Group) -> dict[str, PlugIn]:
    table = {plug_in.name: plug_in for plug_in in BUILT_IN[group]}
    for point in entry_points(group=f"embedkit.{group}"):
        if point.name in table:
            raise ConfigError(
                f"The package {point.dist.name if point.dist else point.value!r} registers the name {point.name!r} "
                f"in embedkit.{group}, which is taken by {table[point.name].target}; uninstall one of the two."
            )
        table[point.name] = PlugIn(point.name, point.value, f"from {point.dist.name if point.dist else 'a plug-in'}")
    return table


def names(group: Group) -> tuple[str, ...]:
    """The known names of a group, sorted."""
    return tuple(sorted(_table(group)))


def find(group: Group, name: str) -> PlugIn:
    """The registry's row; raises UnknownName with the nearest known names."""
    try:
        return _table(group)[name]
    except KeyError:
        raise UnknownName(_SINGULAR[group], name, names(group)) from None


def load(group: Group, name: str) -> Any:
    """Import what a name stands for."""
    plug_in = find(group, name)
    module, _, attribute = plug_in.target.partition(":")
    return getattr(importlib.import_module(module), attribute)


def require(module: str, extra: str, *, needed_for: str, package: str = "") -> ModuleType:
    """Import an optional package, or raise MissingExtra with the line that installs it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        root = module.partition(".")[0]
        missing: Iterable[str] = (error.name or "").split(".")[:1]
        if root not in missing and module != error.name:
            raise
        raise MissingExtra(package or root, extra, needed_for=needed_for) from error
