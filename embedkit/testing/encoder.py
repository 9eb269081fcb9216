"""The contract of an encoder, as tests: subclass it and set `spec`."""

from __future__ import annotations

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from embedkit.codes import packed
from embedkit.encoders.contract import Encoder, RuntimeName
from embedkit.encoders.load import load_encoder
from embedkit.errors import BadImage, BadInput

if TYPE_CHECKING:
    from embedkit.types import ByteArray, VectorArray

__all__ = ["EncoderContract"]

_TEXTS = ("a red canvas shoe", "Grüße aus Köln – 東京", "x", "", "word " * 2_000)


class EncoderContract:
    """Holds for every encoder that embedkit loads."""

    spec: str
    runtime: RuntimeName = "auto"

    @pytest.fixture
    def encoder(self) -> Iterator[Encoder]:
        encoder = load_encoder(self.spec, runtime=self.runtime)
        yield encoder
        encoder.close()

    @staticmethod
    def _batches(encoder: Encoder) -> list[ByteArray | list[str]]:
        """Five inputs of each modality."""
        batches: list[ByteArray | list[str]] = []
        if "text" in encoder.spec.modalities:
            batches.append(list(_TEXTS))
        if "image" in encoder.spec.modalities:
            batches.append(np.stack([encoder.prepare(_picture(seed)) for seed in range(5)]))
        return batches

    def test_vectors_are_as_the_spec_says(self, encoder: Encoder) -> None:
        for batch in self._batches(encoder):
            vectors = encoder.encode(batch)
            assert vectors.dtype == (np.uint8 if encoder.spec.kind == "binary" else np.float32)
            assert vectors.shape == (5, _width(encoder))
            assert np.isfinite(vectors).all()
            if encoder.spec.normalized:
                np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-4)

    def test_codes_are_the_signs_of_the_numbers(self, encoder: Encoder) -> None:
        """Where an encoder knows them; of floats they are the vectors."""
        for batch in self._batches(encoder):
            try:
                numbers = encoder.numbers(batch)
            except BadInput:
                assert encoder.spec.kind == "binary"
                return
            assert numbers.dtype == np.float32
            assert numbers.shape == (len(batch), encoder.spec.dim)
            if encoder.spec.kind == "binary":
                assert all(map(_alike, packed(numbers), encoder.encode(batch)))
            else:
                np.testing.assert_allclose(numbers, encoder.encode(batch), atol=1e-5)

    def test_an_empty_batch_gives_no_rows(self, encoder: Encoder) -> None:
        for batch in self._batches(encoder):
            assert encoder.encode(batch[:0]).shape == (0, _width(encoder))

    def test_a_row_does_not_depend_on_its_batch(self, encoder: Encoder) -> None:
        for batch in self._batches(encoder):
            together = encoder.encode(batch)
            for row, beside in enumerate(together):
                alone = encoder.encode(batch[row : row + 1])[0]
                if encoder.spec.kind == "binary":
                    assert _alike(alone, beside)
                    continue
                assert float(alone @ beside) > 0.9999 * float(np.linalg.norm(alone) * np.linalg.norm(beside))

    def test_threads_do_not_disturb_each_other(self, encoder: Encoder) -> None:
        batches = self._batches(encoder)
        once = [encoder.encode(batch) for batch in batches]
        with ThreadPoolExecutor(4) as pool:
            for again in pool.map(lambda _: [encoder.encode(batch) for batch in batches], range(8)):
                for found, expected in zip(again, once, strict=True):
                    if encoder.spec.kind == "binary":
                        assert _alike(found, expected)
                        continue
                    np.testing.assert_allclose(found, expected, atol=1e-5)

    def test_it_is_identified(self, encoder: Encoder) -> None:
        again = load_encoder(self.spec, runtime=self.runtime) if "weights=none" not in self.spec else None
        if again is not None:
            assert again.spec == encoder.spec
            again.close()
        assert len(encoder.spec.fingerprint) >= 32
        assert encoder.concurrency >= 1

    def test_pictures_are_prepared_or_refused(self, encoder: Encoder) -> None:
        if "image" not in encoder.spec.modalities:
            with pytest.raises(BadInput):
                encoder.prepare(_picture(0))
            return
        out = io.BytesIO()
        _picture(1).save(out, "PNG")
        prepared = encoder.prepare(out.getvalue())
        assert prepared.dtype == np.uint8
        assert prepared.shape == (*(encoder.spec.input_size or ()), 3)
        np.testing.assert_array_equal(prepared, encoder.prepare(_picture(1)))
        with pytest.raises(BadImage):
            encoder.prepare(b"no picture")


def _width(encoder: Encoder) -> int:
    """Columns of what it gives: floats, or bytes of packed bits."""
    return encoder.spec.dim // 8 if encoder.spec.kind == "binary" else encoder.spec.dim


def _alike(one: VectorArray, other: VectorArray) -> bool:
    """Codes but for one bit in 16, whose number may be next to 0."""
    differ = np.unpackbits(one.astype(np.uint8) ^ other.astype(np.uint8))
    return int(differ.sum()) <= differ.size // 16


def _picture(seed: int) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((96, 64), Image.Resampling.BICUBIC)
