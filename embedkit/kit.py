"""`connect` and `Kit`: where an application starts."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from embedkit import plugins
from embedkit.backends.url import parse_url
from embedkit.collection import Collection, check_name
from embedkit.config import Settings, load_settings
from embedkit.resources import Resources

if TYPE_CHECKING:
    from embedkit.backends.contract import Capabilities
    from embedkit.encoders.contract import EncoderSpec, RuntimeName
    from embedkit.training.datasets.open import DataSetCheck
    from embedkit.training.datasets.registry import DataSetInfo
    from embedkit.training.evaluation.encode import ProgressCallback
    from embedkit.training.evaluation.evaluate import EvaluationReport
    from embedkit.training.loop import TrainingProgressCallback
    from embedkit.training.recipe import TrainingRecipe
    from embedkit.training.run import TrainingReport

__all__ = [
    "BackendInfo",
    "CollectionInfo",
    "EncoderInfo",
    "Kit",
    "check_dataset",
    "connect",
    "describe_encoder",
    "evaluate_encoder",
    "export_encoder",
    "list_backends",
    "list_datasets",
    "list_encoders",
    "list_recipes",
    "read_recipe",
    "train_encoder",
]


@dataclass(frozen=True, slots=True)
class CollectionInfo:
    """A line of `Kit.collections`. `views`: encoder by view."""

    name: str
    backend: str
    products: int
    views: dict[str, str]


@dataclass(frozen=True, slots=True)
class BackendInfo:
    """A line of `list_backends`. `capabilities` is None while a package is missing."""

    name: str
    summary: str
    extra: str
    installed: bool
    capabilities: Capabilities | None


@dataclass(frozen=True, slots=True)
class EncoderInfo:
    """A line of `list_encoders`."""

    name: str
    summary: str
    extra: str
    installed: bool


class Kit:
    """A connection to one backend and one metadata store. A context manager; `close` is enough otherwise."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._resources = Resources(settings)

    def collection(self, name: str) -> Collection:
        """A collection by name, whether it exists yet or not. Raises ConfigError for a bad name."""
        return Collection(check_name(name), self._resources)

    def collections(self) -> tuple[CollectionInfo, ...]:
        """Every collection of this backend."""
        store = self._resources.store
        return tuple(
            CollectionInfo(
                row.name, row.backend_url, store.count_products(row.id), {view.name: view.encoder for view in row.views}
            )
            for row in store.collections(self._resources.backend_url)
        )

    def close(self) -> None:
        """Release files, connections and runtimes."""
        self._resources.close()

    def __enter__(self) -> Kit:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def connect(config: str | Path | None = None, *, backend: str | None = None, home: str | Path | None = None) -> Kit:
    """Open a kit from a config file, ``EMBEDKIT_…`` variables and arguments.

    Without any, everything lies under ``./.embedkit``. Nothing is opened until it is needed. Raises ConfigError,
    UnknownName (no such backend).
    """
    settings = load_settings(config, backend=backend, home=home)
    plugins.find("backends", parse_url(settings.backend).scheme)
    return Kit(settings)


def list_backends() -> tuple[BackendInfo, ...]:
    """Every backend that can be named in a URL, with what it can do."""
    from embedkit.backends.open import capabilities

    found = []
    for name in plugins.names("backends"):
        plug_in = plugins.find("backends", name)
        able = capabilities(f"{name}:///local" if name != "oracle" else "oracle://memory")
        found.append(BackendInfo(name, plug_in.summary, plug_in.extra, installed=True, capabilities=able))
    return tuple(found)


def list_encoders() -> tuple[EncoderInfo, ...]:
    """Every family of encoders that a spec string can name."""
    from importlib.util import find_spec

    return tuple(
        EncoderInfo(name, plug_in.summary, plug_in.extra, not plug_in.extra or find_spec("torch") is not None)
        for name in plugins.names("encoders")
        for plug_in in (plugins.find("encoders", name),)
    )


def describe_encoder(spec: str) -> EncoderSpec:
    """What an encoder makes, by its spec string. Raises UnknownName, MissingExtra."""
    from embedkit.encoders.load import describe_encoder as describe

    return describe(spec)


def export_encoder(spec: str, out: str | Path, *, fit: str | Path | None = None, overwrite: bool = False) -> Path:
    """Write an encoder as a model folder that runs without torch; the folder's path.

    `fit`: a catalog whose pictures (a sample of 1,000, the same one every time) the pooling is fitted to; for
    ``pooling=netvlad``, ``pooling=rmac`` with whitened regions, and ``dim=``.
    Raises BadSource, ConfigError, MissingExtra, UnknownName.
    """
    from embedkit.encoders.export import export_encoder as export

    if fit is None:
        return export(spec, Path(out), overwrite=overwrite)
    from embedkit.ingest.sample import sample_pictures
    from embedkit.ingest.sources.open import open_source

    with closing(open_source(str(fit))) as source, closing(sample_pictures(source)) as pictures:
        return export(spec, Path(out), fit=pictures, overwrite=overwrite)


def list_datasets() -> tuple[DataSetInfo, ...]:
    """Every data set that is read with its official splits, and any folder or table of pictures."""
    from embedkit.training.datasets.registry import DATASETS

    return DATASETS


def check_dataset(path: str | Path, *, name: str | None = None) -> DataSetCheck:
    """What of a data set lies at a path, against its official numbers, and what is missing. Downloads nothing.

    `name`: which one, if its files do not tell. Raises BadSource, UnknownName.
    """
    from embedkit.training.datasets.open import check_dataset as check

    return check(path, name=name)


def evaluate_encoder(
    model: str | Path,
    data: str | Path,
    *,
    name: str | None = None,
    limit: int | None = None,
    clusters: bool = True,
    runtime: RuntimeName = "auto",
    threads: int = 0,
    seed: int = 0,
    progress: ProgressCallback | None = None,
) -> EvaluationReport:
    """Judge an encoder, a spec string or a model folder, by the test split and the protocol of a data set.

    `name`: which data set, if its files do not tell. `limit`: about so many queries, whole classes of them, for a
    quick look. `clusters`: NMI and F1 of k-means too, where the protocol has them. Vectors are compared by cosine.
    Raises BadSource, ConfigError, MissingExtra, UnknownName.
    """
    from embedkit.training.evaluation.evaluate import evaluate_encoder as evaluate

    return evaluate(
        str(model),
        data,
        name=name,
        limit=limit,
        clusters=clusters,
        runtime=runtime,
        threads=threads,
        seed=seed,
        progress=progress,
    )


def list_recipes() -> tuple[str, ...]:
    """The names of the training recipes that come along."""
    from embedkit.training.recipe import recipe_names

    return recipe_names()


def read_recipe(text: str) -> TrainingRecipe:
    """A training recipe by its name, or from a ``.toml`` file. Raises ConfigError, UnknownName."""
    from embedkit.training.recipe import read_recipe as read

    return read(text)


def train_encoder(
    recipe: TrainingRecipe | None,
    out: str | Path,
    *,
    resume: bool = False,
    plots: bool = True,
    wandb: bool = False,
    checkpoint_seconds: float = 60.0,
    threads: int = 0,
    progress: TrainingProgressCallback | None = None,
) -> TrainingReport:
    """Train what a recipe says; `out` becomes a model folder, with the history and the plots of the run beside it.

    `resume`: go on with the run in `out` after its last checkpoint (`recipe` is None then, the run has its own).
    `plots`: draw curves, distances, mistakes and the map of the embedding. `wandb`: log to Weights & Biases beside
    TensorBoard. `checkpoint_seconds` lie between checkpoints. `threads`: 0 for one a core. `progress` is told after every batch and every epoch.
    Raises BadSource, ConfigError, DataCorrupt, MissingExtra, TrainingFailed (the loss is no number any more),
    UnknownName; KeyboardInterrupt, after a checkpoint, when it is stopped.
    """
    from embedkit import plugins

    plugins.require("torch", "train", needed_for="Training")
    from embedkit.training.run import train_encoder as train

    return train(
        recipe,
        out,
        resume=resume,
        plots=plots,
        wandb=wandb,
        checkpoint_seconds=checkpoint_seconds,
        threads=threads,
        progress=progress,
    )
