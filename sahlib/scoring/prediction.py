"""Run -> probabilities -> masks -> counts on the test side of the split."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn

from sahlib.data.slices import SliceStore
from sahlib.data.splits import Split
from sahlib.device import device
from sahlib.networks import models
from sahlib.scoring import metrics
from sahlib.study import Study, StudyError
from sahlib.training.numerics import numerics
from sahlib.training.runs import Run
from sahlib.workspace import writing

# Section 2.2 binarizes at 0.5 and section 2.5 names no other threshold for predictions.
THRESHOLD = 0.5


def test(run: Run, store: SliceStore, split: Split, study: Study, trained: Run | None = None) -> pd.DataFrame:
    """The run's counts on the test side, predicted and saved in the run when they are not there yet.

    trained  the run that has the weights, where it is another (see chapters/external_validation.py)
    """
    if not is_tested(run):
        rows = split.rows(store, "test")
        probabilities = predict(load_network(trained or run), store.inputs(rows), study)
        # The first output comes last: its counts say that all is there.
        for index, lesion in reversed(list(enumerate(run.lesions))):
            with writing(run.file("probabilities", lesion, "npy")) as path, open(path, "wb") as file:
                np.save(file, probabilities[:, index])
            counts = counts_of(probabilities[:, index] > THRESHOLD, store.of(lesion), rows)
            with writing(run.file("counts", lesion, "csv")) as path:
                counts.to_csv(path, index=False)
    return run.counts


def is_tested(run: Run) -> bool:
    """Whether the run's counts and probabilities are there."""
    return run.file("counts", run.lesions[0], "csv").exists()


def counts_of(predicted: np.ndarray, store: SliceStore, rows: np.ndarray) -> pd.DataFrame:
    """The columns of counts.csv for masks bool [k,H,W] of the slices at `rows` of the store."""
    counts = metrics.pixel_counts(predicted, store.masks(rows))
    identity = store.slices.iloc[rows][["slice_id", "patient_id"]].reset_index(drop=True)
    return pd.concat([identity, counts, (counts["tp"] + counts["fn"]).rename("lesion_pixels")], axis=1)


def load_network(run: Run) -> nn.Module:
    """The run's network with its weights, on the GPU where there is one, in evaluation mode.

    Nothing but safetensors is read, which holds numbers and no code. Raises StudyError where the file is not whole, or
    its weights were trained under another key than run.json says.
    """
    key, way_out = run.record["recipe"], f"delete {run.path} and run again."
    network = models.build(run.model, key["channels"], len(run.record["study"]["windows"]), len(run.lesions))
    try:
        with safe_open(run.weights, "pt") as file:
            trained = json.loads((file.metadata() or {}).get("recipe", "{}"))
        if differing := sorted(name for name in trained | key if trained.get(name) != key.get(name)):
            named = ", ".join(f"{name} {trained.get(name)} and not {key.get(name)}" for name in differing)
            raise StudyError(f"{run.weights} was trained with {named}; {way_out}")
        network.load_state_dict(load_file(run.weights))
    except (SafetensorError, OSError, RuntimeError) as error:
        raise StudyError(f"{run.weights} does not hold the weights of this run ({error}); {way_out}") from error
    return network.eval().to(device(), memory_format=torch.channels_last)


def predict(network: nn.Module, images: np.ndarray, study: Study) -> np.ndarray:
    """Probabilities float16 [k,K,H,W], one per output, of uint8 images [k,C,H,W]."""
    place = next(network.parameters()).device
    with numerics(study), torch.inference_mode():
        batches = []
        for batch in np.split(images, range(study.batch_size, len(images), study.batch_size)):
            logits = models.forward(network, torch.from_numpy(batch).to(place).float() / 255, study.precision)
            batches.append(logits.sigmoid().half().cpu().numpy())
    return np.concatenate(batches)
