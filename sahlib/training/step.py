"""What is done with one batch: a step of Adam down BCE + Dice (section 2.4), or a score on validation slices.

On a GPU each is captured as one CUDA graph. Nothing here waits for the device.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import BCEWithLogitsLoss

from sahlib.networks import models
from sahlib.study import Study
from sahlib.training import graph
from sahlib.training.augment import augmentation, draw


def make_optimizer(network: nn.Module, study: Study) -> torch.optim.Optimizer:
    """Adam with the Study's learning rate (section 2.4); all weights in one kernel."""
    # On a GPU the steps are counted there, so that a captured step can count; torch warns of each that is not captured.
    on_gpu = next(network.parameters()).is_cuda
    warnings.filterwarnings("ignore", ".*capturable=True.*step.. is running without CUDA graph capture")
    return torch.optim.Adam(network.parameters(), lr=study.learning_rate, fused=True, capturable=on_gpu)


def paper_loss() -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Binary cross entropy + Dice loss on logits [B,K,H,W]; Dice over all pixels of the batch pooled.

    The paper names both terms and no weights, so they weigh the same. Where there are several classes, each output is
    a question of its own (lesion of this class or not), and the loss is the mean over them.
    """
    from monai.losses.dice import DiceLoss

    dice, cross_entropy = DiceLoss(sigmoid=True, batch=True), BCEWithLogitsLoss()
    return lambda logits, truth: dice(logits, truth) + cross_entropy(logits, truth)


def training_step(network: nn.Module, optimizer: torch.optim.Optimizer, study: Study, slices: int, steps: int):
    """The function (images uint8 [b,C,H,W], labels uint8 [b,K,H,W], their draws [b,...]) -> loss that learns one batch.

    On a GPU it is captured as one CUDA graph, compiled where that pays within `steps` calls; what fails of that is left
    out. On two CPU cores compiling took 25 to 48 s and saved 2 to 14 % of a step: a training of `quick` would not earn
    it back.
    """
    loss_function = paper_loss()
    augmented = augmentation(study, next(network.parameters()).device)

    def step_of(network: nn.Module):
        def step(images: torch.Tensor, labels: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
            network.train()
            x, y = augmented(images, labels, draws)
            loss = loss_function(models.forward(network, x, study.precision), y)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            return loss.detach()

        return step

    if not _worth_capturing(network, study, slices):
        return step_of(network)
    return graph.captured_step(step_of, network, optimizer, blank_batch(network, study), steps, not study.deterministic)


def validation_score(network: nn.Module, study: Study, slices: int):
    """The function (images uint8 [b,C,H,W], labels uint8 [b,K,H,W]) -> float32 [3,K] of the network as it then is:

    the loss (K times), the pixels of each class both predicted and true, and predicted + true pixels.
    """
    loss_function = paper_loss()

    def score(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        network.eval()
        with torch.inference_mode():
            logits, truth = models.forward(network, images.float() / 255, study.precision), labels.float()
            predicted = (logits > 0).float()
            overlap, marked = (predicted * truth).sum((0, 2, 3)), (predicted + truth).sum((0, 2, 3))
            return torch.stack([loss_function(logits, truth).expand_as(overlap), overlap, marked])

    if not _worth_capturing(network, study, slices):
        return score
    return graph.captured(score, blank_batch(network, study)[:2], score, "the validation")


def _worth_capturing(network: nn.Module, study: Study, slices: int) -> bool:
    """On a GPU, where an epoch holds a full batch and the Study does not forbid it."""
    return study.capture == "auto" and next(network.parameters()).is_cuda and slices >= study.batch_size


def blank_batch(network: nn.Module, study: Study) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images, labels and draws of a full batch that shows nothing, on the network's device."""
    device = next(network.parameters()).device
    images, labels = (
        torch.zeros((study.batch_size, count, study.size, study.size), dtype=torch.uint8, device=device)
        for count in (len(study.windows), models.output_layer(network).out_channels)
    )
    return images, labels, draw(study, study.batch_size, torch.Generator()).to(device)
