"""From what a search is asked by to queries: which view each part asks, and the vector that it asks with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from embedkit.arguments import check_kind
from embedkit.errors import BadImage, BadInput
from embedkit.search.query import Query, check_text, checked_weights
from embedkit.search.sketches import warn_unless_trained
from embedkit.urls import redact
from embedkit.views import encoder_of, named_view

if TYPE_CHECKING:
    import numpy.typing as npt
    from PIL.Image import Image

    from embedkit.encoders.contract import Encoder
    from embedkit.metadata.rows import CollectionRow, ViewRow
    from embedkit.resources import Resources
    from embedkit.types import Modality, VectorArray

__all__ = ["Questions"]

_LACKING: Mapping[str, tuple[str, str, str]] = {  # modality: what is lacking, what an encoder cannot, what to do
    "text": (
        "texts",
        "reads no text",
        "for words ingest a view title=minilm into a collection of another name, or take an encoder of both for image: "
        "an exported CLIP, or a run of embedkit train --task image-text",
    ),
    "image": (
        "pictures",
        "takes no pictures",
        "for pictures ingest a view image=effnet-lite0 into a collection of another name",
    ),
}


class Questions:
    """A search's question, of one part or of several. Pictures are read once, however many views they ask.

    The arguments are those of `Collection.search`. Raises BadImage, BadInput, FetchFailed, FetchTimeout.
    """

    def __init__(
        self,
        resources: Resources,
        row: CollectionRow,
        *,
        image: str | Path | bytes | Image | None,
        sketch: str | Path | bytes | Image | None,
        text: str | None,
        vector: npt.ArrayLike | None,
        product: str | None,
        weights: Mapping[str, float] | None,
    ) -> None:
        self._resources, self._row = resources, row
        self._shares = checked_weights(weights)
        if text is not None:
            check_text(text)
        self._text, self._vector, self._product = text, vector, product
        self._pictures = {
            part: (given, self._picture_bytes(given))
            for part, given in (("image", image), ("sketch", sketch))
            if given is not None
        }

    def queries(self, view: str | None, *, but: str | None = None) -> list[Query]:
        """A query for each part, of the view that is named, else of the first that fits it and is not `but`.

        Raises BadImage, BadInput, EncoderMismatch.
        """
        found: list[Query] = []
        if self._vector is not None:
            chosen = named_view(self._row, view) if view else self._views(but)[0]
            found.append(self._query("vector", chosen, _checked_vector(self._vector)))
        for part, (named, given) in self._pictures.items():
            chosen = self._view_for("image", view if self._text is None else None, but)
            found.append(self._query(part, chosen, self._encoded_picture(chosen, named, given)))
            if part == "sketch" and chosen.encoder not in self._resources.sketched:
                self._resources.sketched.add(chosen.encoder)
                warn_unless_trained(chosen.encoder)
        if self._text is not None:
            chosen = self._view_for("text", None if self._pictures else view, but)
            found.append(self._query("text", chosen, self._encoder(chosen).encode([self._text])[0]))
        if self._product is not None:
            found.append(self._query("product", *self._stored(self._product, view, but)))
        return found

    def again(self, rerank: str, view: str | None) -> list[Query]:
        """The same question for the view that puts candidates in order. Raises BadInput where that cannot be."""
        named_view(self._row, rerank)
        if rerank == view or len(self._row.views) == 1:
            raise BadInput(f"rerank={rerank!r} is the view that is searched; name another one, or leave it out")
        if self._vector is not None:
            raise BadInput(
                f"A vector asks one view and cannot rerank by {rerank!r}; search by a picture, words or a product"
            )
        if self._pictures and self._text is not None:
            raise BadInput("Pictures and words together are scored exactly as they are; leave out rerank")
        return self.queries(rerank)

    def _query(self, part: str, view: ViewRow, vector: VectorArray) -> Query:
        return Query(view, vector, self._shares.get(part, 1.0))

    def _views(self, but: str | None) -> list[ViewRow]:
        """The views, without the one that only puts candidates in order, unless it is the only one."""
        return [view for view in self._row.views if view.name != but] or list(self._row.views)

    def _view_for(self, modality: Modality, name: str | None, but: str | None) -> ViewRow:
        """The view that a picture or words ask: one of their kind, or another whose encoder takes both (CLIP).

        Raises BadInput.
        """
        views, collection = self._views(but), self._row.name
        own = [view for view in views if view.modality == modality]
        for view in [named_view(self._row, name)] if name else own or views:
            if view.modality == modality or modality in self._encoder(view).spec.modalities:
                return view
        other, lacks, take = _LACKING[modality]
        if name:
            held = "pictures" if modality == "text" else "texts"
            raise BadInput(f"The view {name!r} of {collection!r} holds {held}, and its encoder {lacks}; {take}")
        there = ", ".join(f"{view.name} ({_held(view)})" for view in views)
        beside = f" beside {but!r}, which reranks" if len(views) < len(self._row.views) else ""
        raise BadInput(f"{collection!r} has no view of {other}{beside}; it has {there}; {take}")

    def _encoder(self, view: ViewRow) -> Encoder:
        return encoder_of(self._resources, self._row.name, view)

    def _encoded_picture(self, view: ViewRow, named: str | Path | bytes | Image, given: bytes | Image) -> VectorArray:
        encoder = self._encoder(view)
        try:
            pixels = encoder.prepare(given)
        except BadImage as error:
            if isinstance(named, str | Path):
                raise BadImage(f"{redact(str(named))}: {error}") from error
            raise
        encoded: VectorArray = encoder.encode(pixels[None])[0]
        return encoded

    def _picture_bytes(self, image: str | Path | bytes | Image) -> bytes | Image:
        from PIL.Image import Image

        check_kind(image, str | Path | bytes | Image, "An image is a path, a URL, encoded bytes or a PIL picture")
        return self._resources.read(str(image)) if isinstance(image, str | Path) else image

    def _stored(self, key: str, view: str | None, but: str | None) -> tuple[ViewRow, VectorArray]:
        """A product's own vector, and the view that it is of. Raises BadInput."""
        ids = self._resources.store.vector_ids(self._row.id, key)
        views = self._views(but)
        chosen = named_view(self._row, view) if view else next((v for v in views if v.slot in ids), views[0])
        if chosen.slot in ids:
            fetched = self._resources.backend.fetch(chosen.physical, np.asarray([ids[chosen.slot]], np.int64))
            if len(fetched.ids):
                return chosen, fetched.vectors[0]
        raise BadInput(f"The product {key!r} has no vector in the view {chosen.name!r}")


def _checked_vector(vector: npt.ArrayLike) -> VectorArray:
    """Floats, or the bytes of a code. Raises BadInput."""
    try:
        given = np.asarray(vector)
    except (TypeError, ValueError) as error:
        raise BadInput(f"A query vector is a row of numbers: {error}") from error
    if given.dtype.kind not in "iuf":
        raise BadInput(f"A query vector is a row of numbers, not {type(vector).__name__} of {given.dtype}")
    if given.ndim != 1:
        raise BadInput(f"A query vector has one dimension, not the shape {given.shape}")
    array: VectorArray = given if given.dtype == np.uint8 else given.astype(np.float32, copy=False)
    return array


def _held(view: ViewRow) -> str:
    """What a view holds, in words."""
    made = f"codes of {view.dim} bits" if view.kind == "binary" else f"{view.dim} floats"
    return f"{made} of {'pictures' if view.modality == 'image' else 'texts'} by {view.encoder!r}"
