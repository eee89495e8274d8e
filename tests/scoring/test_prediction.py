"""From a run to probabilities and counts of the test side, and what is no run's weights."""

import dataclasses
import shutil

import numpy as np
import pytest
import torch

from sahlib.scoring import prediction
from sahlib.study import Study, StudyError
from sahlib.training import loop


def train(small, root, model="unet", **changes):
    study, store, split = small
    return loop.train(store, split, dataclasses.replace(study, **changes), model, 0, root)


def test_weights_of_another_recipe_are_refused_and_the_difference_named(small, tmp_path):
    study, store, split = small
    ours, other = train(small, tmp_path), train(small, tmp_path, learning_rate=0.5)
    shutil.copy(other.weights, ours.weights)
    with pytest.raises(StudyError, match="trained with learning_rate 0.5 and not 0.0001"):
        prediction.test(ours, store, split, study)


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 a pickle in a zip", bytes(1000)])
def test_weights_that_are_not_whole_safetensors_are_refused(small, tmp_path, damage):
    study, store, split = small
    run = train(small, tmp_path)
    run.weights.write_bytes(damage)
    with pytest.raises(StudyError, match="weights.safetensors does not hold the weights"):
        prediction.test(run, store, split, study)


def test_counts_are_those_of_the_saved_probabilities(small, tmp_path):
    study, store, split = small
    run = train(small, tmp_path, "attention_unet")
    counts = prediction.test(run, store, split, study)
    rows = split.rows(store, "test")
    truth, predicted = store.masks(rows), np.asarray(run.probabilities) > 0.5
    assert counts["slice_id"].tolist() == store.slices.slice_id.iloc[rows].tolist()
    assert counts["tp"].tolist() == [int((p & t).sum()) for p, t in zip(predicted, truth, strict=True)]
    assert counts["fp"].tolist() == [int((p & ~t).sum()) for p, t in zip(predicted, truth, strict=True)]
    assert counts["lesion_pixels"].tolist() == truth.sum((1, 2)).tolist()
    assert (counts[["tp", "fp", "fn", "tn"]].sum(1) == 32 * 32).all()


@pytest.mark.parametrize("model", Study.models)
def test_several_windows_are_channels_from_the_store_to_the_counts(small, tmp_path, model):
    study, store, split = small
    study = dataclasses.replace(study, windows=("brain", "bone"))
    two = dataclasses.replace(store, further_images=(255 - store.images[:],))
    run = loop.train(two, split, study, model, 0, tmp_path)
    convolutions = [m for m in prediction.load_network(run).modules() if isinstance(m, torch.nn.Conv2d)]
    assert convolutions[0].in_channels == 2
    assert len(prediction.test(run, two, split, study)) == len(split.rows(store, "test"))
