"""The state of an epoch is written beside the next one. What it holds is held by the kills of test_loop."""

from __future__ import annotations

import errno
import threading

import pytest
import torch

from sahlib.study import StudyError
from sahlib.training import checkpoint, loop


def test_training_goes_on_meanwhile_and_at_most_one_state_waits(tmp_path, monkeypatch):
    network, may_write, written = torch.nn.Linear(1, 1), threading.Event(), []
    optimizer = torch.optim.Adam(network.parameters())

    def write(path, tensors, history, stream):
        assert may_write.wait(10)
        written.append((history, float(tensors["network.weight"])))

    monkeypatch.setattr(checkpoint, "write", write)
    torch.nn.init.constant_(network.weight, 1)
    with checkpoint.saving(tmp_path / "state", beside=True) as save:
        save(network, {}, optimizer, [{"epoch": 1}])
        torch.nn.init.constant_(network.weight, 2)  # as the next epoch does before the first is on disk
        second = threading.Thread(target=save, args=(network, {}, optimizer, [{"epoch": 2}]))
        second.start()
        second.join(0.2)
        assert second.is_alive() and written == []
        may_write.set()
        second.join(10)
    assert written == [('[{"epoch": 1}]', 1.0), ('[{"epoch": 2}]', 2.0)]


def test_on_a_processor_training_waits(tmp_path, monkeypatch):
    network, written = torch.nn.Linear(1, 1), []
    monkeypatch.setattr(checkpoint, "write", lambda *given: written.append(given[2]))
    with checkpoint.saving(tmp_path / "state", beside=False) as save:
        save(network, {}, torch.optim.Adam(network.parameters()), [{"epoch": 1}])
        assert written == ['[{"epoch": 1}]']


def refuse(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_ends_the_training_with_one_sentence(small, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "save_file", refuse)
    with pytest.raises(StudyError, match=r"The disk is full; .*state\.safetensors was not written"):
        loop.train(*small[1:], small[0], "unet", 0, tmp_path)


@pytest.mark.parametrize("epochs", [1, 2])
def test_what_the_disk_refuses_is_told_by_the_next_call_or_in_the_end(tmp_path, monkeypatch, epochs):
    network = torch.nn.Linear(1, 1)
    monkeypatch.setattr(checkpoint, "save_file", refuse)
    with (
        pytest.raises(StudyError, match="The disk is full"),
        checkpoint.saving(tmp_path / "state", beside=True) as save,
    ):
        for _ in range(epochs):
            save(network, {}, torch.optim.Adam(network.parameters()), [])


def test_an_error_of_the_training_is_the_one_that_is_told(tmp_path, monkeypatch):
    network = torch.nn.Linear(1, 1)
    monkeypatch.setattr(checkpoint, "save_file", refuse)
    with (
        pytest.raises(RuntimeError, match="the second epoch"),
        checkpoint.saving(tmp_path / "state", beside=True) as save,
    ):
        save(network, {}, torch.optim.Adam(network.parameters()), [])
        raise RuntimeError("the second epoch")
