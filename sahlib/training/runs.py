"""Run: one trained network on disk, found again by a digest of all that changes its result.

`<dataset>/<model>/seed<k>-<digest>/` holds history.csv, weights.safetensors and, written last, run.json. Before that
begun.json says what is trained there, state.safetensors holds the last whole epoch, and failed.txt says why it failed.
Once the run is tested, probabilities.npy and counts.csv lie there too.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors.torch import save_file
from torch import nn

from sahlib.data.slices import SliceStore
from sahlib.data.splits import Split
from sahlib.networks import models
from sahlib.study import FOREIGN, Study, StudyError, digest
from sahlib.workspace import provenance, read_csv, writing

BEGUN, FAILED, STATE = "begun.json", "failed.txt", "state.safetensors"
# Raise when the same Study would train to other weights, so that old runs are not mistaken for new ones.
TRAINING_VERSION = 3
# What of a Study the trained weights depend on, besides the store, the split, the network and the seed.
TRAINING_FIELDS = (
    *("target", "channels", "prior_bias", "epochs", "batch_size", "learning_rate"),
    *("augmentation", "flip_probability", "rotation_degrees", "precision", "deterministic"),
)


@dataclass(frozen=True)
class Run:
    """A finished training; `record` is run.json."""

    path: Path
    record: dict

    @property
    def model(self) -> str:
        return self.record["model"]

    @property
    def seed(self) -> int:
        return self.record["seed"]

    @property
    def history(self) -> pd.DataFrame:
        """One row per epoch: epoch, train_loss, validation_loss, validation_dice, learning_rate, seconds, best."""
        return pd.read_csv(self.path / "history.csv")

    @property
    def weights(self) -> Path:
        return self.path / "weights.safetensors"

    @property
    def lesions(self) -> tuple[str, ...]:
        """What each output of the network means; the first is what the study's figures and tables are about."""
        return tuple(self.record["lesions"])

    @property
    def counts(self) -> pd.DataFrame:
        """One row per test slice in store order: slice_id, patient_id, tp, fp, fn, tn, lesion_pixels."""
        return self.counts_of(self.lesions[0])

    def counts_of(self, lesion: str) -> pd.DataFrame:
        """The counts of one output."""
        return read_csv(self.file("counts", lesion, "csv"))

    @property
    def probabilities(self) -> np.ndarray:
        """Lesion probability of each pixel of the test slices, float16 [k,H,W], memory-mapped."""
        return self.probabilities_of(self.lesions[0])

    def probabilities_of(self, lesion: str) -> np.ndarray:
        """The probabilities of one output."""
        return np.load(self.file("probabilities", lesion, "npy"), mmap_mode="r")

    def file(self, kind: str, lesion: str, ending: str) -> Path:
        """Where the counts or probabilities of one output lie."""
        return self.path / (f"{kind}.{ending}" if lesion == self.lesions[0] else f"{kind}_{lesion}.{ending}")


def run_key(store: SliceStore, split: Split, study: Study, model: str, seed: int) -> dict:
    """All that decides a run's weights on one kind of machine; "recipe" in the files on disk."""
    of = {"version": TRAINING_VERSION, "store": store.digest, "split": split.digest, "model": model, "seed": seed}
    if FOREIGN.fullmatch(model):
        of["code"] = models.code_digest(model)
    return of | {name: study.as_dict()[name] for name in TRAINING_FIELDS}


def folder(runs: Path, study: Study, key: dict) -> Path:
    """Where the run of a key lies."""
    return runs / study.dataset / plain(key["model"]) / f"seed{key['seed']}-{digest(key)}"


def plain(model: str) -> str:
    """A network's name as part of a file's."""
    return model.replace(":", "-")


def find(path: Path) -> Run | None:
    """The finished run in a folder, or None."""
    record = path / "run.json"
    try:
        return Run(path, json.loads(record.read_text()))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise StudyError(f"{record} is damaged ({error}); delete the folder {path} and run again.") from error


def begin(path: Path, key: dict, study: Study) -> None:
    """Says in the run's folder what is trained there, until run.json says it."""
    (path / FAILED).unlink(missing_ok=True)
    with writing(path / BEGUN) as file:
        file.write_text(json.dumps(_identity(key, study), indent=1))


def finish(
    path: Path, key: dict, study: Study, network: nn.Module, shares: dict, best: dict, history: list[dict]
) -> Run:
    """Writes what stays of a training; run.json comes last and makes it a finished run.

    shares: lesion -> its share of the training pixels; best: the weights to keep; history: one row per epoch
    """
    rows = pd.DataFrame(history)
    # Only the last improvement is the epoch whose weights were kept.
    best_epoch = int(rows.loc[rows["best"], "epoch"].max())
    rows["best"] = rows["epoch"] == best_epoch
    record = _identity(key, study) | {
        "lesions": list(shares),
        "lesion_share": next(iter(shares.values())),
        "parameters": sum(weight.numel() for weight in network.parameters()),
        "best_epoch": best_epoch,
        "seconds": round(float(rows["seconds"].sum()), 1),
    }
    with writing(path / "weights.safetensors") as file:
        tensors = {name: tensor.cpu().contiguous() for name, tensor in best.items()}
        save_file(tensors, file, metadata={"recipe": json.dumps(key)})
    with writing(path / "history.csv") as file:
        rows.to_csv(file, index=False)
    with writing(path / "run.json") as file:
        file.write_text(json.dumps(record, indent=1))
    for leftover in (STATE, BEGUN):
        (path / leftover).unlink(missing_ok=True)
    return Run(path, record)


def _identity(key: dict, study: Study) -> dict:
    """What run.json says of a training from its beginning."""
    return {
        "model": key["model"],
        "seed": key["seed"],
        "digest": digest(key),
        "recipe": key,
        "study": {name: value for name, value in study.as_dict().items() if name != "data_dir"},
        "provenance": provenance(),
    }
