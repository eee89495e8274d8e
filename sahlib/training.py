"""The one training loop (section 2.4): BCE + Dice loss, Adam, validation each epoch, the best epoch kept.

    run = train(store, split, study, "unet", seed=0, runs=workspace.runs)

A finished run is found, not repeated; an interrupted one goes on after its last whole epoch; a second process that
wants the same run waits for the first.
"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from . import models
from .augment import draw_transforms, transform
from .paths import alone_in, writing
from .provenance import cores, provenance
from .runs import Run, find, folder, recipe
from .slices import SliceStore
from .splits import Split
from .study import Study, StudyError, digest

if TYPE_CHECKING:
    import torch
    from torch import nn


def train(store: SliceStore, split: Split, study: Study, model: str, seed: int, runs: Path) -> Run:
    """Trains `model` on the split's training side and returns the finished run.

    The best epoch has the highest Dice over all pixels of the validation side pooled, so that false alarms on slices
    without SAH count; where that is equal, as when a network calls everything background, the lowest validation loss.
    """
    this = recipe(store, split, study, model, seed)
    path = folder(runs, study, this)
    if run := find(path):
        return run
    with alone_in(path):
        # Whoever held the lock may have finished this very run.
        return find(path) or _train(store, split, study, this, path)


def _train(store: SliceStore, split: Split, study: Study, this: dict, path: Path) -> Run:
    import torch

    torch.set_num_threads(cores())
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model, seed = this["model"], this["seed"]
    images, labels = _on_device(store, split.rows(store, "train"), device)
    validation = _on_device(store, split.rows(store, "validation"), device)
    prior = float(labels.float().mean())

    network = initial_network(study, model, seed, prior).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), lr=study.learning_rate, fused=True)
    loss_function = paper_loss()
    history, best = _resume(path / "state.safetensors", network, optimizer)

    bias = "on" if study.prior_bias else "off"
    print(
        f"{models.LABELS[model]}, seed {seed}: learning rate {study.learning_rate:g}, prior bias {bias}, "
        f"{study.precision}, {len(images)} slices, from epoch {len(history) + 1}",
        flush=True,
    )
    for epoch in range(len(history) + 1, study.epochs + 1):
        started = time.perf_counter()
        # Seeded by the epoch, not carried along, so that a resumed run draws what an unbroken one would have drawn.
        generator = torch.Generator().manual_seed(int(digest("epoch", seed, epoch), 16))
        order = torch.randperm(len(images), generator=generator)
        matrices = draw_transforms(len(images), study.flip_probability, study.rotation_degrees, generator)
        order, matrices = order.to(device), matrices.to(device)

        network.train()
        total = torch.zeros((), device=device)
        try:
            for batch, matrix in zip(order.split(study.batch_size), matrices.split(study.batch_size), strict=True):
                x, y = transform(images[batch].float() / 255, labels[batch].float(), matrix)
                loss = loss_function(forward(network, x, study.precision), y)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                total += loss.detach() * len(batch)
        except torch.OutOfMemoryError as error:
            raise StudyError(
                f"{models.LABELS[model]} does not fit into the GPU's memory with batch_size {study.batch_size}; "
                f"set batch_size to {max(1, study.batch_size // 2)}, or a smaller size. Finished epochs are kept."
            ) from error
        train_loss = float(total) / len(images)
        if not math.isfinite(train_loss):
            raise StudyError(
                f"The training loss of {models.LABELS[model]} (seed {seed}) became {train_loss} in epoch {epoch}; "
                f"lower learning_rate, now {study.learning_rate}, or use precision='fp32'. Finished epochs are kept."
            )

        validation_loss, validation_dice = evaluate(network, *validation, loss_function, study)
        is_best = best is None or (validation_dice, -validation_loss) > max(
            (row["validation_dice"], -row["validation_loss"]) for row in history
        )
        if is_best:
            best = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
        history.append(
            {
                "epoch": epoch,
                "train_loss": train_loss,
                "validation_loss": validation_loss,
                "validation_dice": validation_dice,
                "learning_rate": study.learning_rate,
                "seconds": round(time.perf_counter() - started, 3),
                "best": is_best,
            }
        )
        _save_state(path / "state.safetensors", network, best, optimizer, history)
        print(
            f"{models.LABELS[model]}, seed {seed}, epoch {epoch}/{study.epochs}: loss {train_loss:.3f}, "
            f"validation loss {validation_loss:.3f}, validation Dice {validation_dice:.3f}"
            f"{' (best so far)' if is_best else ''}, {history[-1]['seconds']:.1f} s",
            flush=True,
        )
    return _finish(path, this, study, network, prior, best, history)


def initial_network(study: Study, model: str, seed: int, prior: float) -> nn.Module:
    """The network before its first step; the same for the same seed, whatever was drawn before."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return models.build(model, study.channels, prior=prior if study.prior_bias else None)


def paper_loss() -> nn.Module:
    """Binary cross entropy + Dice loss on logits [B,1,H,W]; Dice over all pixels of the batch pooled.

    The paper names both terms and no weights, so they weigh the same.
    """
    from monai.losses.dice import DiceCELoss

    return DiceCELoss(sigmoid=True, batch=True)


def forward(network: nn.Module, images: torch.Tensor, precision: str) -> torch.Tensor:
    """Logits float32 [B,1,H,W] of images in [0,1]; "bf16" runs the convolutions in bfloat16."""
    import torch

    images = images.contiguous(memory_format=torch.channels_last)
    with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
        return network(images).float()


def evaluate(
    network: nn.Module, images: torch.Tensor, labels: torch.Tensor, loss_function: nn.Module, study: Study
) -> tuple[float, float]:
    """(mean loss over batches weighted by slices, Dice of all pixels pooled) of uint8 slices [k,1,H,W]."""
    import torch

    network.eval()
    total = torch.zeros((), device=images.device)
    overlap, marked = torch.zeros((), device=images.device), torch.zeros((), device=images.device)
    with torch.inference_mode():
        for x, y in zip(images.split(study.batch_size), labels.split(study.batch_size), strict=True):
            logits, truth = forward(network, x.float() / 255, study.precision), y.float()
            total += loss_function(logits, truth) * len(x)
            predicted = (logits > 0).float()
            overlap += (predicted * truth).sum()
            marked += predicted.sum() + truth.sum()
    return float(total) / len(images), float(2 * overlap / marked.clamp(min=1))


def _on_device(store: SliceStore, rows: np.ndarray, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and SAH masks of `rows`, both uint8 [k,1,H,W]."""
    import torch

    images = torch.from_numpy(store.images[rows][:, None]).to(device)
    labels = torch.from_numpy(store.masks(rows)[:, None].astype(np.uint8)).to(device)
    return images, labels


def _finish(
    path: Path, recipe: dict, study: Study, network: nn.Module, prior: float, best: dict, history: list[dict]
) -> Run:
    """Writes what stays of a training; run.json comes last and makes it a finished run."""
    from safetensors.torch import save_file

    rows = pd.DataFrame(history)
    # Only the last improvement is the epoch whose weights were kept.
    rows["best"] = rows["epoch"] == rows.loc[rows["best"], "epoch"].max()
    record = {
        "model": recipe["model"],
        "seed": recipe["seed"],
        "digest": digest(recipe),
        "recipe": recipe,
        "study": {name: value for name, value in study.as_dict().items() if name != "data_dir"},
        "lesion_share": prior,
        "parameters": sum(weight.numel() for weight in network.parameters()),
        "best_epoch": int(rows.loc[rows["best"], "epoch"].iloc[0]),
        "seconds": round(float(rows["seconds"].sum()), 1),
        "provenance": provenance(),
    }
    with writing(path / "weights.safetensors") as file:
        tensors = {name: tensor.cpu().contiguous() for name, tensor in best.items()}
        save_file(tensors, file, metadata={"recipe": json.dumps(recipe)})
    with writing(path / "history.csv") as file:
        rows.to_csv(file, index=False)
    with writing(path / "run.json") as file:
        file.write_text(json.dumps(record, indent=1))
    (path / "state.safetensors").unlink(missing_ok=True)
    return Run(path, record)


def _save_state(path: Path, network: nn.Module, best: dict, optimizer: torch.optim.Optimizer, history: list) -> None:
    """All that the next epoch needs, as tensors and JSON; the file is replaced only by a whole one."""
    from safetensors.torch import save_file

    tensors = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    tensors |= {f"best.{name}": tensor for name, tensor in best.items()}
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"adam.{index}.{name}": tensor for name, tensor in moments.items()}
    with writing(path) as file:
        # A contiguous copy of each: safetensors knows neither channels_last nor tensors that share memory.
        copies = {name: tensor.cpu().contiguous().clone() for name, tensor in tensors.items()}
        save_file(copies, file, metadata={"history": json.dumps(history)})


def _resume(path: Path, network: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[list[dict], dict | None]:
    """(history, best weights) of an interrupted training, whose network and optimizer are put back; else ([], None)."""
    if not path.exists():
        return [], None
    import torch
    from safetensors import SafetensorError, safe_open

    groups: dict[str, dict] = {"network": {}, "best": {}, "adam": {}}
    try:
        with safe_open(path, "pt") as file:
            history = json.loads(file.metadata()["history"])
            for key in file.keys():  # noqa: SIM118 (not a dict)
                group, name = key.split(".", 1)
                groups[group][name] = file.get_tensor(key)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise StudyError(f"The saved state {path} is damaged ({error}); delete it to train from the start.") from error
    device = next(network.parameters()).device
    network.load_state_dict(groups["network"])
    weights = optimizer.param_groups[0]["params"]
    adam: dict[int, dict] = {}
    for key, tensor in groups["adam"].items():
        index, name = key.split(".")
        if tensor.ndim:
            # Fused Adam walks weight and moments in memory order, so both must lie alike (channels_last).
            tensor = torch.empty_like(weights[int(index)]).copy_(tensor)
        adam.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({"state": adam, "param_groups": optimizer.state_dict()["param_groups"]})
    return history, {name: tensor.to(device) for name, tensor in groups["best"].items()}
