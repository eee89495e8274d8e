"""Which GPU a training takes, on a machine whose GPUs are made up."""

from __future__ import annotations

import os
import threading
from types import SimpleNamespace

import pytest
import torch

from sahlib.training import gpus


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A function that gives the machine a number of GPUs; `taken` gathers what was made the current one."""
    taken = []

    def with_gpus(count):
        monkeypatch.setattr(gpus.tempfile, "gettempdir", lambda: str(tmp_path))
        monkeypatch.setattr(gpus, "POLL_SECONDS", 0.01)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(uuid=f"gpu-{index}"))
        monkeypatch.setattr(torch.cuda, "set_device", taken.append)
        return taken

    return with_gpus


def test_two_at_once_get_different_gpus_and_a_third_waits(machine, capsys):
    taken = machine(2)
    third = threading.Thread(target=lambda: gpus.own_gpu().__enter__())
    with gpus.own_gpu():
        with gpus.own_gpu():
            assert taken == [0, 1]
            third.start()
            third.join(0.3)
            assert third.is_alive() and taken == [0, 1]
        third.join(5)
        assert not third.is_alive() and taken == [0, 1, 1]
    assert capsys.readouterr().out.count("waiting for one") == 1


def test_a_gpu_is_free_again_after_an_error(machine):
    taken = machine(2)
    with pytest.raises(RuntimeError), gpus.own_gpu():
        raise RuntimeError
    with gpus.own_gpu():
        assert taken == [0, 0]


def test_what_one_user_locked_another_can_lock_too(machine, tmp_path):
    """Whatever the first one's umask, and though no other may write to the file."""
    taken, before = machine(2), os.umask(0o077)
    try:
        with gpus.own_gpu():
            pass
    finally:
        os.umask(before)
    (lock,) = tmp_path.iterdir()
    assert lock.stat().st_mode & 0o777 == 0o644
    lock.chmod(0o444)
    with gpus.own_gpu(), gpus.own_gpu():
        assert taken == [0, 0, 1]


def test_a_lock_of_another_user_that_cannot_be_read_is_no_hindrance(machine, monkeypatch):
    taken, opened = machine(2), gpus.Path.open

    def refused(path, *mode):
        if path.name == "sahlib-gpu-gpu-0.lock":
            raise PermissionError
        return opened(path, *mode)

    monkeypatch.setattr(gpus.Path, "open", refused)
    with gpus.own_gpu(), gpus.own_gpu():
        assert taken == [0, 1]


@pytest.mark.parametrize("count", [0, 1])
def test_nothing_is_chosen_where_there_is_nothing_to_choose(machine, count):
    taken = machine(count)
    with gpus.own_gpu(), gpus.own_gpu():
        assert taken == []
