"""The file that a run goes on from."""

from __future__ import annotations

import sys
from dataclasses import fields

import pytest
import torch

from embedkit.errors import DataCorrupt, DiskFull
from embedkit.training.checkpoint import CHECKPOINT, Checkpoint, read_checkpoint, write_checkpoint


def checkpoint(step=3):
    network = torch.nn.Linear(4, 2)
    optimiser = torch.optim.AdamW(network.parameters())
    network(torch.ones(1, 4)).sum().backward()
    optimiser.step()
    return Checkpoint(
        step,
        1.5,
        network.state_dict(),
        optimiser.state_dict(),
        best=(0.5, 2),
        centres=torch.rand(3, 2),
        start={"recall@1": 0.25},
        failures={"a.png": "it is empty"},
        processes=2,
        learned_from="b1a9",
    )


def test_what_is_written_comes_back(tmp_path):
    made = checkpoint()
    write_checkpoint(tmp_path, made)
    found = read_checkpoint(tmp_path)
    for field in fields(Checkpoint):
        left, right = getattr(found, field.name), getattr(made, field.name)
        if field.name in ("failures", "start", "best", "learned_from"):
            assert left == right
        else:
            torch.testing.assert_close(left, right, rtol=0, atol=0)
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT]


def test_a_folder_without_one_gives_none(tmp_path):
    assert read_checkpoint(tmp_path) is None


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_file_that_was_cut_off_is_refused(tmp_path, share):
    write_checkpoint(tmp_path, checkpoint())
    path = tmp_path / CHECKPOINT
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(DataCorrupt, match="no checkpoint that embedkit wrote"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize("values", [[1, 2], {"format": 1}, {"format": 99, "step": 1}, {"step": 1}, torch.ones(2)])
def test_a_file_of_other_values_is_refused(tmp_path, values):
    torch.save(values, tmp_path / CHECKPOINT)
    with pytest.raises(DataCorrupt, match="no checkpoint that embedkit wrote"):
        read_checkpoint(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="a full device is a file of Linux")
def test_a_full_disk_is_told_and_leaves_the_checkpoint_before(tmp_path):
    write_checkpoint(tmp_path, checkpoint(step=3))
    (tmp_path / f".{CHECKPOINT}").symlink_to("/dev/full")
    with pytest.raises(DiskFull, match="--resume"):
        write_checkpoint(tmp_path, checkpoint(step=4))
    assert read_checkpoint(tmp_path).step == 3
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT]
