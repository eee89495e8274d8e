"""Small inputs of the figures, and the texts that a figure shows."""

import matplotlib
import numpy as np
import pandas as pd

SIZE = 32


def a_slice(lesion=True):
    """A grey disc with a square lesion."""
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE // 2
    image = np.where(x**2 + y**2 < 150, 90, 0).astype(np.uint8)
    mask = np.zeros((SIZE, SIZE), bool)
    mask[10:14, 12:20] = lesion
    return image, mask


def a_history(epochs=3, **values):
    epoch = np.arange(1, epochs + 1)
    history = pd.DataFrame(
        {
            "epoch": epoch,
            "train_loss": 1.0 / epoch,
            "validation_loss": 1.2 / epoch,
            "validation_dice": 0.5 * epoch / epochs,
            "learning_rate": 1e-4,
            "seconds": 1.0,
            "best": epoch == epochs,
        }
    )
    return history.assign(**values)


def a_table():
    rows = []
    for k, metric in enumerate(("Dice", "IoU", "Precision", "Recall", "F1")):
        rows.append((metric, "unet", "U-Net", False, 0.5 + 0.1 * k))
        rows.append((metric, "unet", "U-Net", True, 0.8))
        rows.append((metric, "attention_unet", "Attention U-Net", False, 1.0))
    return pd.DataFrame(rows, columns=["metric", "model", "series", "printed", "value"])


def texts(figure):
    return [t.get_text() for t in figure.findobj(matplotlib.text.Text) if t.get_text()]
