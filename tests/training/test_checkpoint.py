"""The state of an epoch is written beside the next one. What it holds is held by the kills of test_loop."""

from __future__ import annotations

import dataclasses
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
    with checkpoint.saving(tmp_path / "state") as save:
        save(network, {}, optimizer, [{"epoch": 1}])
        torch.nn.init.constant_(network.weight, 2)  # as the next epoch does before the first is on disk
        second = threading.Thread(target=save, args=(network, {}, optimizer, [{"epoch": 2}]))
        second.start()
        second.join(0.2)
        assert second.is_alive() and written == []
        may_write.set()
        second.join(10)
    assert written == [('[{"epoch": 1}]', 1.0), ('[{"epoch": 2}]', 2.0)]


@pytest.mark.parametrize("epochs", [2, 3])
def test_a_full_disk_ends_the_training_with_one_sentence(small, tmp_path, monkeypatch, epochs):
    """At the next epoch, or after the last one."""

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(StudyError, match=r"The disk is full; .*state\.safetensors was not written"):
        loop.train(*small[1:], dataclasses.replace(small[0], epochs=epochs), "unet", 0, tmp_path)


def test_an_error_of_the_training_is_the_one_that_is_told(small, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    train_epoch = loop.train_epoch

    def broken(*given):
        if given[-1] == 2:
            raise RuntimeError("the second epoch")
        return train_epoch(*given)

    monkeypatch.setattr(checkpoint, "save_file", refuse)
    monkeypatch.setattr(loop, "train_epoch", broken)
    with pytest.raises(RuntimeError, match="the second epoch"):
        loop.train(*small[1:], small[0], "unet", 0, tmp_path)
