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
    from embedkit.backends.indexes import IndexSpec, SearchParams
    from embedkit.collection import Collection, Status
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
    from embedkit.search.advise import Advice, CodeAdvice
    from embedkit.search.measure import Tuning
    from embedkit.search.rules import IndexAdvice, Point, SpecAdvice
    from embedkit.search.state import IndexState
    from embedkit.training.datasets.open import DataSetCheck
    from embedkit.training.datasets.registry import DataSetInfo
    from embedkit.training.evaluation.evaluate import EvaluationReport, evaluate_encoder
    from embedkit.training.recipe import Augment, TrainingRecipe, list_recipes, read_recipe
    from embedkit.training.report import TrainingProgress, TrainingReport
    from embedkit.training.train import train_encoder
    from embedkit.types import Hit, Product

__version__ = "0.1.0"

_LAZY = {
    "Advice": "search.advise",
    "Augment": "training.recipe",
    "CodeAdvice": "search.advise",
    "Collection": "collection",
    "DataSetCheck": "training.datasets.open",
    "DataSetInfo": "training.datasets.registry",
    "EvaluationReport": "training.evaluation.evaluate",
    "F": "filters",
    "Hit": "types",
    "IndexAdvice": "search.rules",
    "IndexSpec": "backends.indexes",
    "IndexState": "search.state",
    "IngestReport": "ingest.report",
    "Kit": "kit",
    "Point": "search.rules",
    "Product": "types",
    "Progress": "ingest.report",
    "SearchParams": "backends.indexes",
    "SpecAdvice": "search.rules",
    "Status": "collection",
    "TrainingProgress": "training.report",
    "TrainingRecipe": "training.recipe",
    "TrainingReport": "training.report",
    "Tuning": "search.measure",
    "VerifyReport": "ingest.verify",
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
    "Augment",
    "CodeAdvice",
    "Collection",
    "DataSetCheck",
    "DataSetInfo",
    "EmbedkitError",
    "EvaluationReport",
    "F",
    "Hit",
    "IndexAdvice",
    "IndexSpec",
    "IndexState",
    "IngestReport",
    "Kit",
    "Point",
    "Product",
    "Progress",
    "SearchParams",
    "SpecAdvice",
    "Status",
    "Terminal",
    "TrainingProgress",
    "TrainingRecipe",
    "TrainingReport",
    "Transient",
    "Tuning",
    "VerifyReport",
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


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'embedkit' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"embedkit.{_LAZY[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
