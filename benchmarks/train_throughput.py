"""Slices per second of a training epoch, data included: sahlib's loop beside the loops people write.

    python benchmarks/train_throughput.py

One process runs three loops in turn on the same slices of the phantom, with the same networks, loss and batch size:

(a)  the loop people write: a Dataset that decodes PNG files with OpenCV and turns each image, workers, fp32, Adam
(b)  MONAI's idiom: CacheDataset, random transforms by dictionary, workers, autocast; once more without workers, since
     on few cores they take time from the training
(c)  sahlib: the feed, step and epoch of `sahlib.training`; on a GPU once more compiled, whether that would pay or not

An epoch is training alone, without validation in any of them. The first epoch of each loop warms it up and is not
counted; the median of the others is.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import math
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
import pandas as pd
import torch
from monai import transforms
from monai.data import CacheDataset
from monai.data import DataLoader as MonaiDataLoader
from throughput_report import BATCH_SIZE, LOOPS, WORKERS, write_report
from torch.utils.data import DataLoader, Dataset

from sahlib.data import slices, splits
from sahlib.data.slices import SliceStore
from sahlib.networks import models
from sahlib.study import MODELS, Study
from sahlib.training import graph
from sahlib.training.feed import open_feed
from sahlib.training.loop import initial_network, train_epoch
from sahlib.training.numerics import numerics
from sahlib.training.step import make_optimizer, paper_loss, training_step


@dataclass(frozen=True)
class Bench:
    """What all loops share: the slices, in the store and as PNG files {"image", "label"}, and how often to pass them.

    peak  FLOP per second of a matrix product, and `flop`, per network, what one slice takes forward and backward
    """

    study: Study
    device: torch.device
    epochs: int
    store: SliceStore
    rows: np.ndarray
    files: list[dict[str, str]]
    peak: float
    flop: dict[str, float]


@dataclass(frozen=True)
class Timing:
    """Seconds of each counted epoch, and before the first: filling a cache or feed, capturing and compiling."""

    epochs: list[float]
    preparation: float


class TurnedPngs(Dataset):
    """Slices decoded and augmented one by one, as most training scripts do."""

    def __init__(self, files: list[dict[str, str]], study: Study):
        self.files, self.study = files, study

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        image, label = (cv2.imread(self.files[index][key], cv2.IMREAD_GRAYSCALE) for key in ("image", "label"))
        if random.random() < self.study.flip_probability:
            image, label = cv2.flip(image, 1), cv2.flip(label, 1)
        angle = random.uniform(-self.study.rotation_degrees, self.study.rotation_degrees)
        size = image.shape[::-1]
        matrix = cv2.getRotationMatrix2D(((size[0] - 1) / 2, (size[1] - 1) / 2), angle, 1.0)
        image = cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR)
        label = cv2.warpAffine(label, matrix, size, flags=cv2.INTER_NEAREST)
        return {key: torch.from_numpy(a[None]).float() / 255 for key, a in (("image", image), ("label", label))}


def usual_loop(bench: Bench, model: str) -> Timing:
    """(a): PyTorch's defaults throughout."""
    data = TurnedPngs(bench.files, bench.study)
    loader = DataLoader(data, batch_size=BATCH_SIZE, shuffle=True, num_workers=WORKERS)
    return timed(usual_epoch(bench, model, loader, autocast=False), bench, preparation=0.0)


def monai_idiom(bench: Bench, model: str, workers: int) -> Timing:
    """(b): as in MONAI's tutorials; autocast needs no gradient scaler in bf16, and is off where that is emulated."""
    keys, angle = ("image", "label"), math.radians(bench.study.rotation_degrees)
    turn = transforms.Compose(
        [
            transforms.LoadImaged(keys),
            transforms.EnsureChannelFirstd(keys),
            transforms.ScaleIntensityRanged(keys, a_min=0, a_max=255, b_min=0, b_max=1, clip=True),
            # MONAI reads a PNG with its width first.
            transforms.RandFlipd(keys, prob=bench.study.flip_probability, spatial_axis=0),
            transforms.RandRotated(keys, angle, prob=1.0, mode=("bilinear", "nearest"), padding_mode="zeros"),
        ]
    )
    began = time.perf_counter()
    data = CacheDataset(bench.files, turn, num_workers=WORKERS, progress=False)
    preparation = time.perf_counter() - began
    on_gpu = bench.device.type == "cuda"
    loader = MonaiDataLoader(data, batch_size=BATCH_SIZE, shuffle=True, num_workers=workers, pin_memory=on_gpu)
    return timed(usual_epoch(bench, model, loader, autocast=bench.study.precision == "bf16"), bench, preparation)


def usual_epoch(bench: Bench, model: str, loader: DataLoader, autocast: bool) -> Callable[[int], float]:
    """The epoch of (a) and (b), as in tutorials; each step fetches its loss."""
    network = models.of_monai(model, bench.study.channels).to(bench.device)
    optimizer = torch.optim.Adam(network.parameters(), lr=bench.study.learning_rate)
    loss_function = paper_loss()

    def epoch(_: int) -> float:
        network.train()
        total = 0.0
        for batch in loader:
            images, labels = (batch[key].to(bench.device) for key in ("image", "label"))
            optimizer.zero_grad()
            with torch.autocast(bench.device.type, dtype=torch.bfloat16, enabled=autocast):
                loss = loss_function(network(images), labels)
            loss.backward()
            optimizer.step()
            total += loss.item()
        return total

    return epoch


def ours(bench: Bench, model: str, batch_size: int, compiled: bool = False) -> Timing:
    """(c): what `sahlib.training` does for one network, without validation and checkpoints."""
    if compiled:
        with mock.patch.object(graph, "COMPILATION_SECONDS", 0):
            return ours(bench, model, batch_size)
    study = dataclasses.replace(bench.study, batch_size=batch_size)
    with numerics(study):
        began = time.perf_counter()
        feed = open_feed(bench.store, bench.rows, bench.device, ("SAH",))
        network = initial_network(study, model, 0, [0.0]).to(bench.device, memory_format=torch.channels_last)
        optimizer = make_optimizer(network, study)
        step = training_step(network, optimizer, study, len(feed), study.epochs * math.ceil(len(feed) / batch_size))
        synchronize(bench.device)
        preparation = time.perf_counter() - began
        return timed(lambda number: train_epoch(step, feed, study, 0, number), bench, preparation)


def timed(epoch: Callable[[int], object], bench: Bench, preparation: float) -> Timing:
    """One epoch that is not counted, then `bench.epochs` that are."""
    epoch(1)
    seconds = []
    for number in range(2, bench.epochs + 2):
        synchronize(bench.device)
        began = time.perf_counter()
        epoch(number)
        synchronize(bench.device)
        seconds.append(time.perf_counter() - began)
    return Timing(seconds, preparation)


def synchronize(device: torch.device) -> None:
    """Lets a GPU finish what it was given, so that the clock sees it."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def measure(bench: Bench, names: tuple[str, ...], batch_sizes: list[int]) -> pd.DataFrame:
    """One row per network, loop and batch size, sorted that way."""
    runs = [(model, "a", BATCH_SIZE, usual_loop, ()) for model in names]
    runs += [(model, loop, BATCH_SIZE, monai_idiom, (w,)) for model in names for loop, w in (("b", WORKERS), ("b0", 0))]
    # Ours come last: that the allocator keeps freed memory is set for the whole process and cannot be taken back.
    runs += [(model, "c", batch_size, ours, (batch_size,)) for model in names for batch_size in batch_sizes]
    if bench.device.type == "cuda":
        runs += [(model, "c+", BATCH_SIZE, ours, (BATCH_SIZE, True)) for model in names]
    rows = []
    for model, loop, batch_size, run, arguments in runs:
        name = f"{MODELS[model]}, {LOOPS[loop]}, batch {batch_size}"
        try:
            timing = run(bench, model, *arguments)
        except torch.OutOfMemoryError:
            print(f"{name}: does not fit into the memory", flush=True)
            continue
        finally:
            gc.collect()
            torch.cuda.empty_cache()
        seconds = statistics.median(timing.epochs)
        rate = len(bench.rows) / seconds
        print(f"{name}: {seconds:.2f} s per epoch, {rate:.1f} slices/s", flush=True)
        rows.append(
            {
                "model": model,
                "loop": loop,
                "batch_size": batch_size,
                "seconds_per_epoch": seconds,
                "slices_per_second": rate,
                "share_of_peak": rate * bench.flop[model] / bench.peak,
                "preparation_seconds": timing.preparation,
                "epochs_seconds": " ".join(f"{value:.3f}" for value in timing.epochs),
            }
        )
    table = pd.DataFrame(rows)
    ours_at_16 = table[(table["loop"] == "c") & (table["batch_size"] == BATCH_SIZE)].set_index("model")
    table["ours_times_faster"] = table["model"].map(ours_at_16["slices_per_second"]) / table["slices_per_second"]
    table.loc[table["loop"].str.startswith("c"), "ours_times_faster"] = np.nan
    order = {key: place for place, key in enumerate((*names, *LOOPS))}
    return table.sort_values(["model", "loop"], key=lambda column: column.map(order), kind="stable", ignore_index=True)


def peak_flops(device: torch.device, precision: str) -> float:
    """FLOP per second of large matrix products in `precision`: the most that a program gets out of the chip."""
    n, dtype = (8192, 2048)[device.type == "cpu"], {"bf16": torch.bfloat16, "fp32": torch.float32}[precision]
    left, right = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    best = math.inf
    for _ in range(6):  # the first ones warm up
        synchronize(device)
        began = time.perf_counter()
        for _ in range(5):
            left @ right
        synchronize(device)
        best = min(best, (time.perf_counter() - began) / 5)
    return 2 * n**3 / best


def write_pngs(store: SliceStore, rows: np.ndarray, folder: Path) -> list[dict[str, str]]:
    """Image and SAH mask (255 inside) of each row as a pair of PNG files."""
    files = []
    for row, mask in zip(rows, store.masks(rows), strict=True):
        pair = {key: str(folder / f"{row}_{key}.png") for key in ("image", "label")}
        cv2.imwrite(pair["image"], store.images[row])
        cv2.imwrite(pair["label"], mask.astype(np.uint8) * 255)
        files.append(pair)
    return files


def arguments(on_gpu: bool) -> argparse.Namespace:
    """The options, their defaults chosen so that a run takes minutes on the device at hand."""
    parser = argparse.ArgumentParser(description="Training throughput of sahlib beside the loops people write.")
    add = parser.add_argument
    add("--models", nargs="+", choices=MODELS, default=["unet", "attention_unet", "unet_resnet34"])
    add("--size", type=int, default=256 if on_gpu else 128, help="height and width of a slice")
    add("--channels", type=int, nargs=5, default=[64, 128, 256, 512, 1024] if on_gpu else [16, 32, 64, 128, 256])
    add("--batch-sizes", type=int, nargs="+", default=[16, 64, 128] if on_gpu else [16], help="of (c); others take 16")
    add("--slices", type=int, default=1024 if on_gpu else 160)
    add("--epochs", type=int, default=5, help="counted ones, after one that is not")
    add("--output", type=Path, default=Path(__file__).parent / "results")
    return parser.parse_args()


def main() -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    chosen = arguments(device.type == "cuda")
    cv2.setNumThreads(0)  # a forked worker would wait for the threads that OpenCV had before the fork
    study = Study.of_profile(
        "quick",
        models=tuple(dict.fromkeys([*chosen.models, "unet", "attention_unet"])),
        size=chosen.size,
        channels=chosen.channels,
        batch_size=BATCH_SIZE,
        prior_bias=False,  # the first slices may show no lesion; the bias has no part in the speed
        phantom_test_patients=0,
        phantom_patients=max(12, math.ceil(chosen.slices / (25 * 0.65))),  # of 28 slices or so, 70 % of them to train
        **({"epochs": 50} if device.type == "cuda" else {}),  # the paper's: whether compiling pays depends on them
    )
    with tempfile.TemporaryDirectory() as temporary:
        print(f"Drawing {study.phantom_patients} phantom patients", flush=True)
        store = slices.prepare(study, Path(temporary) / "processed")
        rows = splits.prepare(store, study).rows(store, "train")[: chosen.slices]
        pngs = Path(temporary) / "pngs"
        pngs.mkdir()
        networks = {model: initial_network(study, model, 0, [0.0]) for model in chosen.models}
        flop = {model: 3e9 * models.gflop(network, study.size) for model, network in networks.items()}
        peak = peak_flops(device, study.precision)
        bench = Bench(study, device, chosen.epochs, store, rows, write_pngs(store, rows, pngs), peak, flop)
        table = measure(bench, tuple(chosen.models), chosen.batch_sizes)
    write_report(table, study, len(rows), chosen.epochs, peak, chosen.output)


if __name__ == "__main__":
    main()
