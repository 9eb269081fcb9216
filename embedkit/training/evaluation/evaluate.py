"""From vectors, or from an encoder, to the figures that a data set's protocol asks for."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from embedkit.encoders.contract import Encoder, RuntimeName
from embedkit.encoders.load import load_encoder
from embedkit.errors import BadSource, ConfigError
from embedkit.training.datasets.contract import DataSet, Pairs, Split, Subset
from embedkit.training.datasets.open import open_dataset
from embedkit.training.datasets.relevance import relevance_of
from embedkit.training.evaluation.clustering import cluster_scores
from embedkit.training.evaluation.contract import Scores
from embedkit.training.evaluation.cross_modal import cross_modal_scores, encode_texts
from embedkit.training.evaluation.encode import Encoded, EncodingProgress, ProgressCallback, encode_split
from embedkit.training.evaluation.hashing import TOP, HashCurves, HashScores, hashing_scores
from embedkit.training.evaluation.limit import limited
from embedkit.training.evaluation.ranking import cross_camera_scores, random_gallery_scores
from embedkit.training.evaluation.retrieval import category_scores, retrieval_scores
from embedkit.training.evaluation.verification import pair_scores

if TYPE_CHECKING:
    from embedkit.training.datasets.contract import BoolArray
    from embedkit.types import FloatArray

__all__ = ["EvaluationReport", "evaluate_data", "evaluate_encoder", "score_vectors"]

_WHOLE = ("query-gallery", "zero-shot")  # protocols in which a ranking is of all there is
_NAMED = 20  # pictures that a report names
_log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class EvaluationReport:
    """How good an encoder is on a data set.

    `metrics`: the figures by name; `primary` of them decides which of two models is better. Of the `pictures`,
    `failed` could not be read (`failures` names the first); `missing` are named by the data set's lists and not on
    disk: a figure can be held against a paper's only where both are 0 and there is no `limit`. `unmatched` queries
    have nothing to be found. `curves`: of binary codes whose pictures search each other or a gallery.
    """

    model: str
    data: str
    protocol: str
    metrics: Mapping[str, float]
    primary: str
    greater_is_better: bool
    dim: int
    pictures: int
    queries: int
    unmatched: int
    failed: int
    missing: int
    seconds: float
    limit: int | None = None
    failures: tuple[tuple[str, str], ...] = ()
    curves: HashCurves | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, the figures among them."""
        values = asdict(replace(self, curves=None))
        del values["curves"]
        metrics = {name: round(value, 6) for name, value in values.pop("metrics").items()}
        values["seconds"] = round(self.seconds, 3)
        values["failures"] = [{"path": path, "error": error} for path, error in self.failures]
        return {**metrics, **values}


def score_vectors(
    data: DataSet, vectors: FloatArray, gallery: FloatArray | None = None, *, clusters: bool = True, seed: int = 0
) -> Scores:
    """The figures of a data set's protocol. `vectors`: one for each picture of the query split, in its order.

    `gallery`: of the gallery split, where there is one; of the captions, where these are what is searched.
    `clusters`: NMI and F1 too, where queries search each other.
    Raises BadSource, ConfigError when pairs, a gallery or its vectors are missing that the protocol asks for.
    """
    query = data.query
    if data.protocol == "pairs":
        pairs = _needed(data, data.pairs, "pairs")
        return pair_scores(vectors, pairs.first, pairs.second, pairs.same, pairs.folds)
    if data.protocol == "random-galleries":
        return _by_subset(data, vectors, seed)
    if data.protocol == "zero-shot":
        scores = retrieval_scores(vectors, query.labels)
        if not clusters:
            return scores
        return replace(scores, values={**scores.values, **cluster_scores(vectors, query.labels, seed=seed)})
    if data.protocol == "image-text":
        captions = _needed(data, query.captions, "captions")
        texts = _needed(data, gallery, "the vectors of the captions")
        return cross_modal_scores(vectors, query.labels, texts, captions.labels, subsets=data.subsets)
    found = _needed(data, data.gallery, "a gallery")
    if gallery is None:
        raise ConfigError(f"The protocol {data.protocol!r} needs the vectors of the gallery too; give them as gallery")
    if data.protocol == "cross-camera":
        return cross_camera_scores(
            vectors, query.labels, _given(query.cameras), gallery, found.labels, _given(found.cameras)
        )
    if data.protocol in ("consumer-to-shop", "street-to-shop"):
        return category_scores(
            vectors,
            query.labels,
            _given(query.categories),
            gallery,
            found.labels,
            _given(found.categories),
            names=data.categories,
            within=data.protocol == "street-to-shop",
        )
    return retrieval_scores(vectors, query.labels, gallery, found.labels, relevance=relevance_of(data))


def _needed(data: DataSet, part: T | None, what: str) -> T:
    if part is None:
        raise BadSource(f"The protocol {data.protocol!r} needs {what}, which the data set {data.name!r} lacks")
    return part


def _given(column: Any) -> Any:
    if column is None:
        raise BadSource("The protocol of the data set needs cameras or categories, which its splits lack")
    return column


def _by_subset(data: DataSet, vectors: FloatArray, seed: int) -> Scores:
    """Figures of every subset by name; the first one decides."""
    subsets = data.subsets or (Subset("all", np.arange(len(vectors))),)
    parts = {
        part.name: random_gallery_scores(vectors[part.rows], data.query.labels[part.rows], seed=seed)
        for part in subsets
    }
    first = next(iter(parts))
    values = {f"{key}:{name}": value for name, part in parts.items() for key, value in part.values.items()}
    return Scores(values, f"{parts[first].primary}:{first}", parts[first].queries)


def evaluate_encoder(
    model: str | Path,
    data: str | Path,
    *,
    name: str | None = None,
    limit: int | None = None,
    clusters: bool = True,
    curves: str | Path | None = None,
    runtime: RuntimeName = "auto",
    threads: int = 0,
    seed: int = 0,
    progress: ProgressCallback | None = None,
) -> EvaluationReport:
    """Judge an encoder, a spec string or a model folder, by the test split and the protocol of a data set.

    `name`: which data set, if its files do not tell. `limit`: about so many queries of two classes or more, and ten
    times as many of a gallery, for a quick look. `clusters`: NMI and F1 of k-means too, where the protocol has them.
    Vectors are compared by cosine, codes by Hamming distance. `curves`: a PNG to draw of precision and recall, where
    the encoder is binary.
    Raises BadSource, ConfigError, MissingExtra, UnknownName.
    """
    if limit is not None and limit < 2:
        raise ConfigError(f"A limit of {limit} pictures leaves nothing to be found; give 2 or more")
    opened = open_dataset(data, name=name)
    _check_classes(opened, str(data))
    encoder = load_encoder(str(model), runtime=runtime, threads=threads)
    try:
        if curves is not None:
            _check_curves(encoder, opened)
        report = evaluate_data(
            encoder, opened, limit=limit, clusters=clusters, threads=threads, seed=seed, progress=progress
        )
        if curves is not None and report.curves is not None:
            _draw(Path(curves), report.curves)
        return report
    finally:
        encoder.close()


def _check_classes(data: DataSet, where: str) -> None:
    """Raise BadSource where pictures search each other and all are of one class, since every answer is then right."""
    if data.protocol == "zero-shot" and len(data.query) and len(np.unique(data.query.labels)) < 2:
        raise BadSource(
            f"{where} has {len(data.query):,} pictures of one class to search each other; every answer among "
            "them is right, so the figures say nothing; give two classes or more"
        )


def _check_curves(encoder: Encoder, data: DataSet) -> None:
    if encoder.spec.kind != "binary":
        raise ConfigError(f"Curves are drawn of binary codes, and {encoder.spec.name!r} makes floats; leave curves out")
    if data.protocol not in (*_WHOLE, "image-text"):
        raise ConfigError(f"The protocol {data.protocol!r} has no curves of codes; leave curves out")


def _draw(path: Path, curves: HashCurves) -> None:
    from embedkit.training.plots.codes import draw_codes

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draw_codes(path, curves)
    except OSError as error:
        raise ConfigError(f"The curves cannot be written to {str(path)!r}: {error.strerror or error}") from error


def evaluate_data(
    encoder: Encoder,
    data: DataSet,
    *,
    limit: int | None = None,
    clusters: bool = True,
    threads: int = 0,
    seed: int = 0,
    progress: ProgressCallback | None = None,
) -> EvaluationReport:
    """Judge an encoder by a data set that is open."""
    if "image" not in encoder.spec.modalities:
        raise ConfigError(f"The encoder {encoder.spec.name!r} takes no pictures; give one that does")
    if data.protocol == "image-text" and "text" not in encoder.spec.modalities:
        raise ConfigError(
            f"The encoder {encoder.spec.name!r} takes no texts, which {data.name!r} asks with; give one that takes "
            "pictures and texts"
        )
    if limit is not None:
        data = limited(data, limit)
    begun = time.perf_counter()
    parts = [data.query] if data.gallery is None else [data.query, data.gallery]
    encoded = _encode(encoder, parts, threads, progress)
    left = _without(data, [part.good for part in encoded])
    vectors = [part.vectors for part in encoded]
    if data.protocol == "image-text" and left.query.captions is not None:
        vectors.append(encode_texts(encoder, left.query.captions))
    scores = score_vectors(left, *vectors, clusters=clusters, seed=seed)
    coded = _coded(left, vectors) if encoder.spec.kind == "binary" else None
    metrics = scores.values if coded is None else {**scores.values, **coded.values}
    failures = tuple(failure for part in encoded for failure in part.failures)
    if failures:
        _log.warning("%d pictures cannot be read and are left out; the first is %s: %s", len(failures), *failures[0])
    return EvaluationReport(
        encoder.spec.name,
        data.name,
        data.protocol,
        metrics,
        scores.primary,
        scores.greater_is_better,
        encoder.spec.dim,
        sum(map(len, parts)),
        scores.queries,
        scores.unmatched,
        len(failures),
        len(data.missing),
        time.perf_counter() - begun,
        limit,
        failures[:_NAMED],
        coded.curves if coded is not None else None,
    )


def _coded(data: DataSet, vectors: list[FloatArray]) -> HashScores | None:
    """The figures of hashing, where pictures search each other or one gallery with nothing left out of it.

    Of pictures and captions both ways, and the curves of captions that search pictures.
    """
    if data.protocol == "image-text" and data.query.captions is not None:
        sides = ((vectors[1], data.query.captions.labels), (vectors[0], data.query.labels))
        t2i, i2t = hashing_scores(*sides[0], *sides[1]), hashing_scores(*sides[1], *sides[0])
        values = {f"t2i-{name}": value for name, value in t2i.values.items()}
        values |= {f"i2t-{name}": value for name, value in i2t.values.items()}
        return HashScores(values, t2i.curves)
    if data.protocol not in _WHOLE:
        return None
    stored = (None, None) if data.gallery is None else (vectors[1], data.gallery.labels)
    return hashing_scores(vectors[0], data.query.labels, *stored, top=data.top or TOP, relevance=relevance_of(data))


def _encode(encoder: Encoder, parts: list[Split], threads: int, progress: ProgressCallback | None) -> list[Encoded]:
    """Every part; the progress is told over all of them. Raises BadSource when nothing of one can be read."""
    total, before, failed = sum(map(len, parts)), 0, 0
    encoded = []
    for part in parts:

        def tell(done: int, bad: int, before: int = before, failed: int = failed) -> None:
            if progress is not None:
                progress(EncodingProgress(total, before + done, failed + bad))

        one = encode_split(encoder, part, threads=threads, progress=tell)
        if not one.good.any():
            path, reason = one.failures[0]
            raise BadSource(f"None of the {len(part):,} pictures can be read; the first is {path}: {reason}")
        encoded.append(one)
        before, failed = before + len(part), failed + len(one.failures)
    return encoded


def _without(data: DataSet, good: list[BoolArray]) -> DataSet:
    """The data set without the pictures that could not be read."""
    if all(part.all() for part in good):
        return data
    place = np.cumsum(good[0]) - 1
    pairs = data.pairs
    if pairs is not None:
        whole = good[0][pairs.first] & good[0][pairs.second]
        pairs = Pairs(place[pairs.first][whole], place[pairs.second][whole], pairs.same[whole], pairs.folds[whole])
    return replace(
        data,
        query=data.query.take(good[0]),
        gallery=data.gallery.take(good[1]) if data.gallery is not None else None,
        pairs=pairs,
        subsets=tuple(Subset(part.name, place[part.rows[good[0][part.rows]]]) for part in data.subsets),
    )
