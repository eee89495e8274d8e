"""Tables of pixel counts made up for tests: of given numbers, of an imagined model, of given mean scores."""

import numpy as np
import pandas as pd


def table(patients, tp, fp, fn, pixels=10_000):
    """Counts of slices, patients given one letter (or name) a slice."""
    tp, fp, fn = (np.asarray(x, dtype=np.int64) for x in (tp, fp, fn))
    slice_id = [f"slice{i}" for i in range(len(tp))]
    frame = pd.DataFrame({"slice_id": slice_id, "patient_id": list(patients), "tp": tp, "fp": fp, "fn": fn})
    return frame.assign(tn=pixels - tp - fp - fn, lesion_pixels=tp + fn)


def predictions(truth, seed, quality=0.7, false_positives=0.3):
    """Counts of an imagined model on the slices of `truth` (patient of each slice, lesion pixels of each slice)."""
    patients, lesion = truth
    rng = np.random.default_rng(seed)
    tp = rng.binomial(lesion, quality)
    fp = np.where(rng.random(len(lesion)) < false_positives, rng.integers(1, 60, len(lesion)), 0)
    return table(patients, tp, fp, lesion - tp)


def truth_of(patients, seed=0, slices=(2, 7)):
    """Some slices for each patient; every patient has a lesion on the first, others come and go."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(*slices, patients)
    first = np.append(0, np.cumsum(lengths)[:-1])
    lesion = np.where(rng.random(lengths.sum()) < 0.4, rng.integers(1, 300, lengths.sum()), 0)
    lesion[first] = rng.integers(20, 300, patients)
    return np.repeat([f"p{i:03d}" for i in range(patients)], lengths), lesion


def one_slice_each(scores):
    """A table whose mean Dice over slices is the mean of `scores`: one slice per patient, 1/1000 steps."""
    tp = np.rint(np.asarray(scores) * 1000).astype(int)
    return table([f"p{i:04d}" for i in range(len(tp))], tp, 1000 - tp, 1000 - tp)
