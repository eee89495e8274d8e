"""The fast path against a plain loop written the way a textbook would, so that speed has not changed the science."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch.nn.functional import binary_cross_entropy_with_logits

from sahlib.study import digest
from sahlib.training import loop
from sahlib.training.augment import draw_transforms


def rotated(image, matrix, order):
    """One image float [H,W] resampled by scipy; `matrix` [2,3] speaks of (x, y), scipy of (row, column)."""
    centre = (np.array(image.shape) - 1) / 2
    turn = matrix[:, :2].numpy().astype(float)[::-1, ::-1]
    return ndimage.affine_transform(image, turn, centre - turn @ centre, order=order, mode="grid-constant")


def textbook_curve(small, study, model, epochs):
    """Training losses: one image after the other, NCHW, fp32, BCE and Dice by hand, PyTorch's default Adam."""
    _, store, split = small
    rows = split.rows(store, "train")
    network = loop.initial_network(study, model, 0, [store.masks(rows).mean()])
    optimizer = torch.optim.Adam(network.parameters(), lr=study.learning_rate)
    network.train()
    curve = []
    for epoch in range(1, epochs + 1):
        generator = torch.Generator().manual_seed(int(digest("epoch", 0, epoch), 16))
        order = torch.randperm(len(rows), generator=generator)
        matrices = draw_transforms(len(rows), study.flip_probability, study.rotation_degrees, generator)
        losses = []
        for first in range(0, len(rows), study.batch_size):
            batch = range(first, min(first + study.batch_size, len(rows)))
            images = [rotated(store.images[rows[order[i]]] / 255.0, matrices[i], 1) for i in batch]
            masks = [rotated(store.masks(rows)[order[i]].astype(float), matrices[i], 0) for i in batch]
            x, y = (torch.tensor(np.stack(a)[:, None], dtype=torch.float32) for a in (images, masks))
            logits = network(x)
            p = torch.sigmoid(logits)
            dice = (2 * (p * y).sum() + 1e-5) / (p.sum() + y.sum() + 1e-5)
            loss = binary_cross_entropy_with_logits(logits, y) + 1 - dice
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item() * len(batch))
        curve.append(sum(losses) / len(rows))
    return np.array(curve)


# Measured on one machine: U-Net 1e-6 in fp32, 0.4 % in bf16 (8 bits of mantissa); Attention U-Net 0.3 % in either,
# since batch normalization over its few lowest pixels magnifies rounding. On a GPU other libraries add up in another
# order than the processor, on which the textbook's loop runs.
@pytest.mark.parametrize(
    ("model", "precision", "tolerance"),
    [
        ("unet", "fp32", 1e-3 if torch.cuda.is_available() else 1e-4),
        ("unet", "bf16", 0.01),
        ("attention_unet", "fp32", 0.01),
        ("attention_unet", "bf16", 0.01),
    ],
)
def test_loss_curve_over_3_epochs_is_the_textbook_loop_s(small, tmp_path, model, precision, tolerance):
    fields = {"precision": precision, "learning_rate": 1e-3, "epochs": 3, "prior_bias": True, "channels": (16,) * 5}
    study = dataclasses.replace(small[0], **fields)
    run = loop.train(small[1], small[2], study, model, 0, tmp_path)
    expected = textbook_curve(small, study, model, 3)
    assert expected[0] - expected[-1] > 5 * tolerance, "a curve that does not move would compare nothing"
    np.testing.assert_allclose(run.history["train_loss"], expected, rtol=tolerance)
