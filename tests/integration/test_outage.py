"""A Milvus server stops answering while a catalog goes in: the run waits, or stops where the next one goes on."""

from __future__ import annotations

import threading

import pytest

import embedkit
from embedkit.errors import BackendUnavailable
from embedkit.ingest import committer
from embedkit.testing.servers import MilvusProcess
from tests.conftest import picture

pytestmark = pytest.mark.own_server
COUNT = 160


@pytest.fixture
def server(tmp_path):
    """One of its own, since it is frozen."""
    process = MilvusProcess(tmp_path / "milvus")
    process.start()
    yield process
    process.stop()


@pytest.fixture
def pictures_folder(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(COUNT):
        picture(number, (48, 48)).save(folder / f"{number:03}.png")
    return folder


def test_an_outage_is_waited_out_or_leaves_a_run_that_can_be_resumed(server, pictures_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("EMBEDKIT_INGEST__BATCH_SIZE", "4")
    with embedkit.connect(backend=server.url, home=tmp_path / "home") as kit:  # a cold server is slow to make one
        kit.collection("outage").ingest(pictures_folder, limit=4)
    monkeypatch.setenv("EMBEDKIT_BACKEND_OPTIONS__TIMEOUT", "3")
    notes = []

    def freeze_at(count, seconds=None):
        """A progress callback that freezes the server, for good or for some seconds, once so many records are in."""
        frozen = []

        def progress(moment):
            notes.append(moment.note)
            if moment.encoded >= count and not frozen:
                frozen.append(True)
                server.freeze()
                if seconds is not None:
                    threading.Timer(seconds, server.thaw).start()

        return progress

    with embedkit.connect(backend=server.url, home=tmp_path / "home") as kit:
        there = kit.collection("outage")
        with monkeypatch.context() as patch:
            patch.setattr(committer, "_WAITS", (0.2,))
            with pytest.raises(BackendUnavailable, match="does not answer"):
                there.ingest(pictures_folder, progress=freeze_at(12))
        server.thaw()
        assert 12 <= there.count() < COUNT
        report = there.ingest(pictures_folder, progress=freeze_at(4, seconds=6))
        assert "interrupted run" in report.warnings[0]
        assert any(note.startswith("waiting: Milvus at") for note in notes)
        assert there.verify().ok
        assert there.count() == COUNT
        assert there.search(image=pictures_folder / "077.png", k=1)[0].key == "077.png"
