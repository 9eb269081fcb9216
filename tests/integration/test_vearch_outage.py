"""A Vearch that is killed while a catalog goes in: the run waits, or stops where the next one goes on."""

from __future__ import annotations

import threading

import pytest

import embedkit
from embedkit.errors import BackendUnavailable
from embedkit.ingest import committer
from tests.services.vearch import VearchProcess


@pytest.fixture
def server(tmp_path):
    process = VearchProcess(tmp_path / "vearch")
    process.start()
    yield process
    process.kill()


def test_a_killed_cluster_is_waited_for_or_leaves_a_run_that_can_be_resumed(server, catalog, tmp_path, monkeypatch):
    monkeypatch.setenv("EMBEDKIT_INGEST__BATCH_SIZE", "4")
    notes = []

    def kill_at(count, *, back):
        """A progress callback that kills the server once so many records are in, and starts it again or does not."""
        killed = []

        def progress(moment):
            notes.append(moment.note)
            if moment.encoded >= count and not killed:
                killed.append(True)
                server.kill()
                if back:
                    threading.Timer(0.7, server.start).start()

        return progress

    with embedkit.connect(backend=server.url, home=tmp_path / "home") as kit:
        there = kit.collection("outage")
        with monkeypatch.context() as patch:
            patch.setattr(committer, "_WAITS", (0.1,))
            with pytest.raises(BackendUnavailable, match=r"Vearch at vearch://127.0.0.1:\d+/shop does not answer"):
                there.ingest(catalog, progress=kill_at(8, back=False))
        server.start()
        assert 8 <= there.count() < 24
        report = there.ingest(catalog, progress=kill_at(4, back=True))
        assert "interrupted run" in report.warnings[0]
        assert any(note.startswith("waiting: Vearch at") for note in notes)
        assert there.verify().ok
        assert there.count() == 24
        assert there.search(image=catalog / "img" / "07.png", k=1)[0].key == "p07"
