"""What the paper printed and claimed, as data, each with the place it stands in.

Numbers are as printed. Claims are in our words. Nothing here says whether a number or a claim is right; where the
paper contradicts itself, both sides are kept and `CONTRADICTIONS` names them.
"""

from __future__ import annotations

from dataclasses import dataclass

UNET, ATTENTION = "unet", "attention_unet"  # the paper's two networks, by this project's names

# The trained network that stands for one of the paper's: its U-Net had a ResNet34 encoder (section 2.3).
COUNTERPARTS = {UNET: ("unet", "unet_free_output", "unet_resnet34"), ATTENTION: ("attention_unet",)}


@dataclass(frozen=True)
class Setting:
    """One thing the paper says about how it was done, and where."""

    value: object
    section: str


SETTINGS = {
    "image_size": Setting((256, 256), "2.2"),
    "learning_rate": Setting(1e-4, "2.4"),
    "epochs": Setting(50, "2.4"),
    "batch_size": Setting(16, "2.4"),
    "test_batches": Setting(86, "3.4"),
}


@dataclass(frozen=True)
class PrintedTable:
    """A table of the paper: rows[metric][i] belongs to columns[i]. area_percent is in per cent of the image."""

    number: int
    columns: tuple[str, ...]
    rows: dict[str, tuple[float, ...]]

    def value(self, metric: str, column: str) -> float:
        """The printed number; KeyError or ValueError where there is none."""
        return self.rows[metric][self.columns.index(column)]


SAMPLES = ("sample 1", "sample 2", "sample 3")

# Section 3.3: U-Net on three chosen samples.
TABLE_1 = PrintedTable(1, SAMPLES, {
    "dice": (0.57, 0.57, 0.73),
    "iou": (0.39, 0.40, 0.57),
    "precision": (0.50, 0.79, 0.81),
    "recall": (0.65, 0.45, 0.66),
    "f1": (0.57, 0.57, 0.73),
    "area_percent": (3.35, 1.1, 2.76),
})  # fmt: skip

# Section 3.3: Attention U-Net on the same three samples.
TABLE_2 = PrintedTable(2, SAMPLES, {
    "dice": (0.57, 0.57, 0.73),
    "iou": (0.39, 0.40, 0.57),
    "precision": (0.50, 0.79, 0.81),
    "recall": (0.65, 0.45, 0.66),
    "f1": (0.57, 0.57, 0.73),
    "area_percent": (3.35, 1.1, 2.76),
})  # fmt: skip

# Section 3.4: both networks on the full test set of 86 batches.
TABLE_3 = PrintedTable(3, (UNET, ATTENTION), {
    "dice": (0.867, 0.896),
    "iou": (0.848, 0.877),
    "precision": (0.725, 0.637),
    "recall": (0.478, 0.557),
    "f1": (0.507, 0.553),
})  # fmt: skip

# Which convention each row of Table 3 is taken under. The paper does not say how it averaged. These are readings that
# its numbers allow: a Dice so far above F1 needs many empty slices counted as 1, and the test set is given in batches.
TABLE_3_CONVENTIONS = {
    "dice": "mean_empty_1", "iou": "mean_empty_1", "precision": "batches", "recall": "batches", "f1": "batches",
}  # fmt: skip

# Numbers in the running text: (section, network, sample) -> metric -> value.
QUOTES = {
    ("3.2", UNET, "sample 1"): {"dice": 0.59, "iou": 0.42},
    ("3.2", ATTENTION, "sample 1"): {"dice": 0.61, "iou": 0.44, "recall": 0.69},
    ("3.2", UNET, "sample 2"): {"precision": 0.70, "recall": 0.31, "dice": 0.43},
    ("3.2", ATTENTION, "sample 2"): {"recall": 0.44, "dice": 0.49},
    ("3.2", UNET, "sample 3"): {"dice": 0.67, "iou": 0.51},
    ("3.2", ATTENTION, "sample 3"): {"dice": 0.73, "iou": 0.57},
    ("3.3", UNET, "sample 3"): {"dice": 0.73},
    ("3.3", UNET, "sample 1"): {"area_percent": 3.35},
    ("3.3", ATTENTION, "sample 1"): {"dice": 0.61, "recall": 0.69},
    ("3.3", ATTENTION, "sample 2"): {"dice": 0.38, "iou": 0.23},
    ("3.4", UNET, "test set"): {"precision": 0.725},
    ("3.4", ATTENTION, "test set"): {"dice": 0.896, "iou": 0.877, "recall": 0.557},
    ("3.5", ATTENTION, "test set"): {"dice": 0.896, "iou": 0.877, "precision": 0.637, "recall": 0.557},
    ("3.5", UNET, "test set"): {"dice": 0.867, "iou": 0.848, "precision": 0.725, "recall": 0.478},
}


@dataclass(frozen=True)
class Statement:
    """Something the paper says, in our words. sections: every place that says it."""

    key: str
    words: str
    sections: tuple[str, ...]


# What it says happened.
_CLAIMS = (
    Statement("resnet34_helps", "a ResNet34 encoder steadies U-Net's gradients and convergence", ("2.3",)),
    Statement("both_converge", "both networks converge within the 50 epochs", ("3.1",)),
    Statement("no_overfitting", "training and validation loss both fall; no significant overfitting", ("3.1",)),
    Statement("unet_converges_faster", "U-Net converges faster", ("3.1",)),
    Statement("unet_small_gap", "U-Net's training and validation loss stay close", ("3.1",)),
    Statement("attention_fluctuates_early", "Attention U-Net's loss fluctuates more in the first epochs", ("3.1",)),
    Statement("same_end_level", "Attention U-Net ends at a level like U-Net's", ("3.1",)),
    Statement("unet_finds_most_of_sample_1", "U-Net finds most of the bleeding in sample 1", ("3.2",)),
    Statement("attention_better_on_every_sample", "Attention U-Net has the higher Dice on all three samples", ("3.2",)),
    Statement("attention_better_on_small", "Attention U-Net is better on small SAH", ("1", "2.3", "3.2", "3.4", "3.5")),
    Statement("unet_covers_more", "U-Net covers broad regions better", ("3.2",)),
    Statement(
        "unet_precise_not_sensitive_on_sample_2", "U-Net has high precision but low recall in sample 2", ("3.2",)
    ),
    Statement("both_accurate", "both networks come close to the ground truth", ("3.2",)),
    Statement("unet_even_across_samples", "U-Net scores evenly across the samples, best on sample 3", ("3.3",)),
    Statement("unet_recall_strong", "U-Net has strong recall on the samples, at some cost in precision", ("3.3",)),
    Statement("attention_varies_more", "Attention U-Net varies more from sample to sample", ("3.3",)),
    Statement("attention_drops_on_sample_2", "Attention U-Net drops on sample 2, the small one", ("3.3",)),
    Statement("attention_higher_dice", "Attention U-Net has the higher Dice", ("3.4", "3.5", "4")),
    Statement("attention_higher_iou", "Attention U-Net has the higher IoU", ("3.4", "3.5", "4")),
    Statement("attention_higher_recall", "Attention U-Net has the higher recall", ("3.4", "3.5")),
    Statement("unet_higher_precision", "U-Net has the higher precision", ("3.4", "3.5", "4")),
    Statement("attention_for_broad_coverage", "Attention U-Net suits a need for broad coverage", ("3.4",)),
    Statement("unet_less_noise", "U-Net predicts less noise in the background", ("3.4", "3.5")),
    Statement("unet_better_on_large", "U-Net is better on large bleedings, with some irrelevant regions", ("3.5",)),
    Statement("complementary", "the two complement each other; neither leads in every score", ("3.5", "4")),
)
CLAIMS = {c.key: c for c in _CLAIMS}

# Where it disagrees with itself, or prints what its formulas do not allow.
CONTRADICTIONS = (
    Statement(
        "tables_1_and_2_identical",
        "Tables 1 and 2 print the same 18 numbers for two networks whose text scores differ", ("3.3",)),
    Statement(
        "samples_in_3_2_and_tables", "the Dice and IoU that section 3.2 quotes for the samples are not those of "
        "Tables 1 and 2, except Attention U-Net on sample 3", ("3.2", "3.3")),
    Statement(
        "table_2_and_its_text", "the text under Table 2 quotes Dice 0.61 and 0.38 where the table has 0.57 and 0.57",
        ("3.3",)),
    Statement(
        "attention_on_sample_2", "Attention U-Net's Dice on sample 2 is 0.49 and praised in section 3.2, 0.38 and a "
        "drop in section 3.3, and 0.57 in Table 2", ("3.2", "3.3")),
    Statement(
        "unet_recall", "U-Net's recall is low on sample 2 in section 3.2 (0.31), strong on the samples in section 3.3, "
        "and the lower of the two in Table 3", ("3.2", "3.3", "3.4")),
    Statement(
        "broad_coverage", "section 3.2 gives broad coverage to U-Net, section 3.4 to Attention U-Net", ("3.2", "3.4")),
    Statement(
        "unet_noise", "section 3.4 has U-Net suppress noise, section 3.5 has it include irrelevant regions",
        ("3.4", "3.5")),
    Statement(
        "dice_is_not_f1", "Table 3 prints a Dice of 0.867 and 0.896 beside an F1 of 0.507 and 0.553, though for binary "
        "masks they are the same number; they must have been averaged differently, and the paper does not say how",
        ("2.5", "3.4")),
)  # fmt: skip
