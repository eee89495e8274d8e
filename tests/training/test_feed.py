"""Resident and streamed slices give the same batches, and streaming does not hold the store."""

import dataclasses
import tracemalloc

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from sahlib.data import slices
from sahlib.data.slices import SliceStore
from sahlib.training import feed, loop

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def pair(small):
    study, store, split = small
    store = slices.wide(store, study) if study.augmentation == "travels" else store
    rows = split.rows(store, "train")
    resident = feed.open_feed(store, rows, DEVICE, ("SAH",))
    assert isinstance(resident, feed.Resident)
    return resident, feed.Streamed(store, rows, DEVICE, ("SAH",))


@pytest.mark.parametrize("batch_size", [1, 5, 16, 1000])
@pytest.mark.parametrize("kind", ["small", "travelling"])
def test_both_give_the_same_batches(request, kind, batch_size):
    resident, streamed = pair(request.getfixturevalue(kind))
    order = torch.randperm(len(resident), generator=torch.Generator().manual_seed(0))
    batches = list(zip(resident.batches(order, batch_size), streamed.batches(order, batch_size), strict=True))
    assert sum(len(images) for (images, _), _ in batches) == len(order)
    for ours, others in batches:
        for a, b in zip(ours, others, strict=True):
            assert a.dtype == b.dtype == torch.uint8 and a.device == b.device and torch.equal(a, b)


def test_a_batch_holds_the_slices_that_were_asked_for(small):
    _, store, split = small
    rows = split.rows(store, "train")
    images, labels = next(iter(feed.open_feed(store, rows, DEVICE, ("SAH",)).batches(torch.tensor([3, 0]), 2)))
    np.testing.assert_array_equal(images[:, 0].cpu(), store.images[rows[[3, 0]]])
    np.testing.assert_array_equal(labels[:, 0].cpu(), store.masks(rows[[3, 0]]))


@pytest.mark.parametrize("kind", ["small", "travelling"])
def test_what_does_not_fit_is_streamed_and_trains_to_the_same_weights(request, kind, tmp_path, monkeypatch, capsys):
    study, store, split = request.getfixturevalue(kind)
    fits = loop.train(store, split, study, "unet", 0, tmp_path / "resident")
    monkeypatch.setattr(feed, "free_memory", lambda _: 1000)
    streamed = loop.train(store, split, study, "unet", 0, tmp_path / "streamed")
    assert "streamed from disk" in capsys.readouterr().out
    weights = [load_file(run.weights) for run in (fits, streamed)]
    if DEVICE.type == "cpu":  # a GPU repeats a run to the bit only where it is told to
        assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    np.testing.assert_allclose(streamed.history["train_loss"], fits.history["train_loss"], rtol=1e-3)


def sparse_store(path, count=4096, size=256):
    """A store of 512 MiB that takes no room on disk."""
    arrays = [
        np.lib.format.open_memmap(path / f"{name}.npy", "w+", np.uint8, (count, size, size))
        for name in ("images", "labels")
    ]
    return SliceStore(path, *arrays, pd.DataFrame({"slice_id": np.arange(count)}), {})


def test_a_store_larger_than_memory_is_read_in_bounded_memory(tmp_path, monkeypatch):
    store = sparse_store(tmp_path)
    monkeypatch.setattr(feed, "free_memory", lambda _: 100 << 20)
    streamed = feed.open_feed(store, np.arange(len(store)), DEVICE, ("SAH",))
    tracemalloc.start()
    seen = sum(len(images) for images, _ in streamed.batches(torch.arange(len(store)), 16))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    batch = 2 * 16 * 256 * 256
    assert seen == len(store) and peak < (feed.READ_AHEAD + 4) * batch


def test_an_abandoned_epoch_stops_reading(small, monkeypatch):
    _, streamed = pair(small)
    read, read_pair = [], feed._pair
    monkeypatch.setattr(feed, "_pair", lambda *asked: read.append(asked) or read_pair(*asked))
    batches = streamed.batches(torch.arange(len(streamed)), 1)
    next(batches)
    batches.close()
    assert 1 <= len(read) <= 1 + feed.READ_AHEAD < len(streamed)


def test_what_the_reader_cannot_read_is_an_error_where_the_batch_is_asked_for(small):
    _, streamed = pair(small)
    short = dataclasses.replace(streamed, rows=streamed.rows + 10**6)
    with pytest.raises(IndexError):
        list(short.batches(torch.arange(2), 1))
