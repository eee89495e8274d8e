"""The one training loop (section 2.4): BCE + Dice loss, Adam, validation each epoch, the best epoch kept.

A finished run is found, not repeated; an interrupted one goes on after its last whole epoch; a second process that
wants the same run waits for the first. Within an epoch nothing waits for the device: batches, augmentation, loss and
scores stay on it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
import traceback
from collections.abc import Callable, Collection
from pathlib import Path

import torch
from torch import nn

from sahlib import progress
from sahlib.data.scan import CLASSES
from sahlib.data.slices import SliceStore, wide
from sahlib.data.splits import Split
from sahlib.device import device
from sahlib.networks import models
from sahlib.study import Study, StudyError, digest, name_of
from sahlib.training import checkpoint
from sahlib.training.augment import draw
from sahlib.training.feed import Resident, Streamed, open_feed
from sahlib.training.numerics import numerics
from sahlib.training.runs import FAILED, STATE, Run, begin, find, finish, folder, run_key
from sahlib.training.step import blank_batch, make_optimizer, training_step, validation_score
from sahlib.workspace import alone_in, writing


def train(store: SliceStore, split: Split, study: Study, model: str, seed: int, runs: Path) -> Run:
    """Trains `model` on the split's training side and returns the finished run.

    The best epoch has the highest Dice over all pixels of the validation side pooled, so that false alarms on slices
    without SAH count; where that is equal, as when a network calls everything background, the lowest validation loss.
    """
    key = run_key(store, split, study, model, seed)
    path = folder(runs, study, key)
    if run := find(path):
        return run
    with alone_in(path):
        # Whoever held the lock may have finished this very run.
        if run := find(path):
            return run
        begin(path, key, study)
        try:
            return _train_within_memory(store, split, study, key, path)
        except Exception as error:
            # For whoever watches many trainings from outside; the disk may be what failed.
            with contextlib.suppress(StudyError, OSError), writing(path / FAILED) as file:
                file.write_text(f"{(str(error).strip() or repr(error)).splitlines()[-1]}\n")
            raise


def _train_within_memory(store: SliceStore, split: Split, study: Study, key: dict, path: Path) -> Run:
    """_train, with what a GPU says when it is full or cannot be deterministic turned into a way out."""
    label = name_of(key["model"])
    try:
        with numerics(study):
            return _train(store, split, study, key, path)
    except torch.OutOfMemoryError as error:
        traceback.clear_frames(error.__traceback__)  # they hold the network and its activations
        fits = fitting_batch_size(study, key["model"], len(lesion_shares(store, split, study)))
        way = f"set batch_size to {fits}, at which a step fits," if fits else "no batch size does: set smaller channels"
        raise StudyError(
            f"{label} does not fit into the GPU's memory with batch_size {study.batch_size}; {way} or a smaller "
            "size. Finished epochs are kept."
        ) from error
    except RuntimeError as error:
        if "does not have a deterministic implementation" not in str(error):
            raise
        raise StudyError(f"{label} cannot run with deterministic=True on this device: {error}") from error


def _train(store: SliceStore, split: Split, study: Study, key: dict, path: Path) -> Run:
    model, seed, state = key["model"], key["seed"], path / STATE
    name = f"{name_of(model)}, seed {seed}"
    shares = lesion_shares(store, split, study)
    taught = wide(store, study, progress.over("scans")) if study.augmentation == "travels" else store
    feed = open_feed(taught, split.rows(store, "train"), device(), tuple(shares))
    validation = open_feed(store, split.rows(store, "validation"), device(), tuple(shares))
    network = initial_network(study, model, seed, shares.values()).to(device(), memory_format=torch.channels_last)
    optimizer = make_optimizer(network, study)
    history, best = checkpoint.resume(state, network, optimizer)

    bias, way = "on" if study.prior_bias else "off", "" if isinstance(feed, Resident) else " streamed from disk"
    said = f"learning rate {study.learning_rate:g}, prior bias {bias}, {study.precision}"
    said += f", augmentation {study.augmentation}"
    print(f"{name}: {said}, {len(feed)} slices{way}, from epoch {len(history) + 1}", flush=True)
    began = time.perf_counter()  # of the time that an epoch takes: capturing and compiling belongs to the first one
    steps = (study.epochs - len(history)) * math.ceil(len(feed) / study.batch_size)
    step = training_step(network, optimizer, study, len(feed), steps)
    score = validation_score(network, study, len(validation))
    beside, done = device().type == "cuda", len(history)
    with checkpoint.saving(state, beside) as save, progress.bar(study.epochs, name, done) as advance:
        for epoch in range(done + 1, study.epochs + 1):
            train_loss = train_epoch(step, feed, study, seed, epoch)
            if not math.isfinite(train_loss):
                raise StudyError(
                    f"The training loss of {name} became {train_loss} in epoch {epoch}; lower learning_rate, now "
                    f"{study.learning_rate}, or use precision='fp32'. Finished epochs are kept."
                )
            loss, dice = evaluate(score, validation, study)
            earlier = [(row["validation_dice"], -row["validation_loss"]) for row in history]
            is_best = best is None or (dice, -loss) > max(earlier)
            if is_best:
                best = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
            ended = time.perf_counter()
            seconds, began = round(ended - began, 3), ended
            row = {"epoch": epoch, "train_loss": train_loss, "validation_loss": loss, "validation_dice": dice}
            history.append(row | {"learning_rate": study.learning_rate, "seconds": seconds, "best": is_best})
            if epoch < study.epochs:  # what is kept of the last one is written by `finish`
                save(network, best, optimizer, history)
            advance(
                f"{name}, epoch {epoch}/{study.epochs}: loss {train_loss:.3f}, validation loss {loss:.3f}, "
                f"validation Dice {dice:.3f}{' (best so far)' if is_best else ''}, {seconds:.1f} s",
                loss=train_loss,
                validation_Dice=dice,
            )
    return finish(path, key, study, network, shares, best, history)


def train_epoch(step: Callable, feed: Resident | Streamed, study: Study, seed: int, epoch: int) -> float:
    """One pass over all slices of `feed`; the loss of an epoch is the mean over its slices.

    Order and augmentation are seeded by the epoch, not carried along, so that a resumed run draws what an unbroken one
    would have drawn.
    """
    generator = torch.Generator().manual_seed(int(digest("epoch", seed, epoch), 16))
    order = torch.randperm(len(feed), generator=generator)
    draws = draw(study, len(feed), generator).to(feed.device).split(study.batch_size)
    batches, total = feed.batches(order, study.batch_size), 0
    for (images, labels), own in zip(batches, draws, strict=True):
        total = total + step(images, labels, own) * len(own)
    return float(total) / len(feed)


def evaluate(score: Callable, feed: Resident | Streamed, study: Study) -> tuple[float, float]:
    """(mean loss over batches weighted by slices, Dice of all pixels pooled) of the slices of `feed`.

    Where there are several classes, the Dice is the mean over them.
    """
    total = torch.zeros(())
    for images, labels in feed.batches(torch.arange(len(feed)), study.batch_size):
        scores = score(images, labels).double()
        scores[0] *= len(images)
        total = total + scores
    loss, overlap, marked = total.cpu()
    return float(loss[0]) / len(feed), float((2 * overlap / marked.clamp(min=1)).mean())


def lesion_shares(store: SliceStore, split: Split, study: Study) -> dict[str, float]:
    """What each output of a network is to find -> its share of the pixels of the training side.

    With target "all" these are the classes that occur on the training side, the store's lesion first.
    """
    rows = split.rows(store, "train")
    names = dict.fromkeys([store.lesion, *(CLASSES[1:] if study.target == "all" else ())])
    shares = {name: store.of(name).lesion_pixels.iloc[rows].sum() / (len(rows) * study.size**2) for name in names}
    return {name: float(share) for name, share in shares.items() if share > 0 or name == store.lesion}


def initial_network(study: Study, model: str, seed: int, shares: Collection[float]) -> nn.Module:
    """The network before its first step, one output per lesion share; equal for the same seed, whatever was drawn."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        priors = list(shares) if study.prior_bias else None
        return models.build(model, study.channels, len(study.windows), len(shares), priors)


def fitting_batch_size(study: Study, model: str, outputs: int) -> int:
    """The largest of batch_size / 2, / 4, ... with which a step of `model` fits into the memory there is; 0 if none."""
    size = study.batch_size // 2
    while size:
        smaller = dataclasses.replace(study, batch_size=size, prior_bias=False)
        try:
            network = initial_network(smaller, model, 0, [0.0] * outputs)
            network.to(device(), memory_format=torch.channels_last)
            step = training_step(network, make_optimizer(network, smaller), smaller, slices=0, steps=1)
            step(*blank_batch(network, smaller))
            return size
        except torch.OutOfMemoryError as error:
            traceback.clear_frames(error.__traceback__)
            size //= 2
        finally:
            network = step = None
            torch.cuda.empty_cache()
    return 0
