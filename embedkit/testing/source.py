"""The contract of a source, as tests: subclass it with a fixture `source` that has at least three records."""

from __future__ import annotations

import pytest

from embedkit.ingest.sources.contract import RecordError, Source
from embedkit.types import Record

__all__ = ["SourceContract"]


class SourceContract:
    """What resuming rests on: one order, true offsets."""

    @pytest.fixture
    def source(self) -> Source:
        raise NotImplementedError("define a fixture `source` that gives the source to be tested")

    def test_reading_twice_gives_the_same(self, source: Source) -> None:
        first = list(source.records())
        assert first == list(source.records())
        assert len(first) >= 3
        assert all(isinstance(entry, Record | RecordError) and entry.locator for entry in first)

    def test_an_offset_skips_that_many(self, source: Source) -> None:
        every = list(source.records())
        for start in (0, 1, len(every) - 1, len(every), len(every) + 5):
            assert list(source.records(start)) == every[start:]

    def test_count_is_right_or_unknown(self, source: Source) -> None:
        assert source.count() in (None, len(list(source.records())))

    def test_the_fingerprint_stays(self, source: Source) -> None:
        assert source.fingerprint() == source.fingerprint()
        assert source.name
