"""The history of a run: what a crash leaves of it, and how the curve joins."""

from __future__ import annotations

import pytest

from embedkit.errors import DataCorrupt
from embedkit.training.history import HISTORY, History, read_history


@pytest.fixture
def written(tmp_path):
    history = History(tmp_path, step=-1)
    for step in range(4):
        history.add({"step": step, "loss": step / 2})
    history.close()
    return tmp_path


def test_lines_come_back_as_they_were(written):
    assert read_history(written) == [{"step": step, "loss": step / 2} for step in range(4)]


def test_a_run_that_has_not_begun_has_no_history(tmp_path):
    assert read_history(tmp_path) == []


def test_a_line_is_on_disk_before_the_file_is_closed(tmp_path):
    history = History(tmp_path, step=-1)
    history.add({"step": 1})
    assert read_history(tmp_path) == [{"step": 1}]
    history.close()


def test_a_last_line_that_was_cut_off_is_left_out_and_written_over(written):
    path = written / HISTORY
    path.write_bytes(path.read_bytes()[:-5])
    assert [line["step"] for line in read_history(written)] == [0, 1, 2]
    history = History(written, step=2)
    history.add({"step": 3})
    history.close()
    assert [line["step"] for line in read_history(written)] == [0, 1, 2, 3]


def test_what_lies_after_the_step_to_go_on_from_is_forgotten(written):
    History(written, step=1).close()
    assert [line["step"] for line in read_history(written)] == [0, 1]


@pytest.mark.parametrize("line", [b"{no json}", b"\xff\xfe", b"[1, 2]", b"7", b'{"loss": 1}'])
def test_a_whole_line_that_embedkit_did_not_write_is_refused_with_its_number(written, line):
    path = written / HISTORY
    first, rest = path.read_bytes().split(b"\n", 1)
    path.write_bytes(first + b"\n" + line + b"\n" + rest)
    with pytest.raises(DataCorrupt, match="line 2"):
        read_history(written)


def test_a_process_that_is_not_the_first_writes_nothing(tmp_path):
    history = History(None, step=0)
    history.add({"step": 1})
    history.close()
    assert list(tmp_path.iterdir()) == []
