"""embedkit turns a product catalog into a visual search engine.

>>> import embedkit
>>> kit = embedkit.connect()
>>> products = kit.collection("products")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from embedkit.errors import EmbedkitError, Terminal, Transient

if TYPE_CHECKING:
    from embedkit.asynchronous import AsyncCollection
    from embedkit.backends.indexes import IndexSpec, SearchParams
    from embedkit.bench.ann import BenchProgress
    from embedkit.bench.report import AnnPoint, AnnReport, AnnRow
    from embedkit.clusters import Cluster, ClusterReport
    from embedkit.collection import Collection
    from embedkit.filters import F, parse_filter
    from embedkit.ingest.report import IngestReport, Progress
    from embedkit.ingest.verify import VerifyReport
    from embedkit.kit import (
        Kit,
        advise_indexes,
        check_dataset,
        connect,
        describe_encoder,
        export_encoder,
        list_backends,
        list_datasets,
        list_encoders,
    )
    from embedkit.living.backup import BackupReport, RestoreReport
    from embedkit.living.copy import CopyReport
    from embedkit.living.imports import ImportReport
    from embedkit.living.reindex import ReindexReport
    from embedkit.living.versions import DroppedVersion, GcReport, Switched
    from embedkit.search.advise import Advice, CodeAdvice
    from embedkit.search.duplicates import DuplicateGroup, DuplicateReport
    from embedkit.search.measure import AdviceProgress, Tuning
    from embedkit.search.rules import IndexAdvice, Point, SpecAdvice
    from embedkit.search.shadow import ViewComparison
    from embedkit.search.state import IndexState
    from embedkit.status import Status
    from embedkit.training.datasets.open import DataSetCheck
    from embedkit.training.datasets.registry import DataSetInfo
    from embedkit.training.evaluation.evaluate import EvaluationReport, evaluate_encoder
    from embedkit.training.recipe import Augment, TrainingRecipe, list_recipes, read_recipe
    from embedkit.training.report import TrainingProgress, TrainingReport
    from embedkit.training.train import train_encoder
    from embedkit.types import Hit, Product, Question

__version__ = "0.1.0"

_LAZY = {
    "Advice": "search.advise",
    "AdviceProgress": "search.measure",
    "AnnPoint": "bench.report",
    "AnnReport": "bench.report",
    "AnnRow": "bench.report",
    "AsyncCollection": "asynchronous",
    "Augment": "training.recipe",
    "BackupReport": "living.backup",
    "BenchProgress": "bench.ann",
    "Cluster": "clusters",
    "ClusterReport": "clusters",
    "CodeAdvice": "search.advise",
    "Collection": "collection",
    "CopyReport": "living.copy",
    "DataSetCheck": "training.datasets.open",
    "DataSetInfo": "training.datasets.registry",
    "DroppedVersion": "living.versions",
    "DuplicateGroup": "search.duplicates",
    "DuplicateReport": "search.duplicates",
    "EvaluationReport": "training.evaluation.evaluate",
    "F": "filters",
    "GcReport": "living.versions",
    "Hit": "types",
    "ImportReport": "living.imports",
    "IndexAdvice": "search.rules",
    "IndexSpec": "backends.indexes",
    "IndexState": "search.state",
    "IngestReport": "ingest.report",
    "Kit": "kit",
    "Point": "search.rules",
    "Product": "types",
    "Progress": "ingest.report",
    "Question": "types",
    "ReindexReport": "living.reindex",
    "RestoreReport": "living.backup",
    "SearchParams": "backends.indexes",
    "SpecAdvice": "search.rules",
    "Status": "status",
    "Switched": "living.versions",
    "TrainingProgress": "training.report",
    "TrainingRecipe": "training.recipe",
    "TrainingReport": "training.report",
    "Tuning": "search.measure",
    "VerifyReport": "ingest.verify",
    "ViewComparison": "search.shadow",
    "advise_indexes": "kit",
    "check_dataset": "kit",
    "connect": "kit",
    "describe_encoder": "kit",
    "evaluate_encoder": "training.evaluation.evaluate",
    "export_encoder": "kit",
    "list_backends": "kit",
    "list_datasets": "kit",
    "list_encoders": "kit",
    "list_recipes": "training.recipe",
    "parse_filter": "filters",
    "read_recipe": "training.recipe",
    "train_encoder": "training.train",
}

__all__ = [
    "Advice",
    "AdviceProgress",
    "AnnPoint",
    "AnnReport",
    "AnnRow",
    "AsyncCollection",
    "Augment",
    "BackupReport",
    "BenchProgress",
    "Cluster",
    "ClusterReport",
    "CodeAdvice",
    "Collection",
    "CopyReport",
    "DataSetCheck",
    "DataSetInfo",
    "DroppedVersion",
    "DuplicateGroup",
    "DuplicateReport",
    "EmbedkitError",
    "EvaluationReport",
    "F",
    "GcReport",
    "Hit",
    "ImportReport",
    "IndexAdvice",
    "IndexSpec",
    "IndexState",
    "IngestReport",
    "Kit",
    "Point",
    "Product",
    "Progress",
    "Question",
    "ReindexReport",
    "RestoreReport",
    "SearchParams",
    "SpecAdvice",
    "Status",
    "Switched",
    "Terminal",
    "TrainingProgress",
    "TrainingRecipe",
    "TrainingReport",
    "Transient",
    "Tuning",
    "VerifyReport",
    "ViewComparison",
    "__version__",
    "advise_indexes",
    "check_dataset",
    "connect",
    "describe_encoder",
    "evaluate_encoder",
    "export_encoder",
    "list_backends",
    "list_datasets",
    "list_encoders",
    "list_recipes",
    "parse_filter",
    "read_recipe",
    "train_encoder",
]


if not TYPE_CHECKING:  # which would take any misspelt name for one that is there

    def __getattr__(name: str) -> Any:
        if name not in _LAZY:
            raise AttributeError(f"module 'embedkit' has no attribute {name!r}")
        value = getattr(importlib.import_module(f"embedkit.{_LAZY[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return __all__
