"""The rule of the claims ledger and what is measured for each claim, written down before any result was seen.

What was changed since, and when, the printed rule says itself.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sahlib.paper import printed, transcript
from sahlib.scoring import metrics
from sahlib.study import MODELS
from sahlib.training.curves import NEAR

HOLDS, FAILS, UNKNOWN, CONTRADICTS = "holds", "does not hold", "cannot be told", "contradicts itself"
VERDICTS = (HOLDS, FAILS, UNKNOWN, CONTRADICTS)
UNET, ATTENTION, OPEN = transcript.UNET, transcript.ATTENTION, "attention_unet_open_gates"
FREE, RESNET34 = "unet_free_output", "unet_resnet34"
PAPERS = "the paper's U-Net"  # an arm of a Measure: the network that stands_for_unet

LEVEL = 0.05
MARGIN = 0.01  # a third of the smallest difference in Dice that the paper calls an advantage (0.029)
GOOD_DICE = 0.7  # "good overlap", Zijdenbos et al. 1994, IEEE TMI 13:716
MIN_SEEDS = 3  # 3 runs against 3 are wholly apart by chance in 1 of 20 cases in a given order
MIN_EPOCHS = 10
MIN_PATIENTS = 6  # with fewer no paired permutation test can reach 5 %: two-sided, 2 / 2**5 = 0.06

RULE = f"""\
**How a verdict is reached.** Written down before the results, but for four things. The least number of patients in
(2) was added after a trial run had given a verdict from two patients; it only withholds verdicts. In (3) the interval
took in the trainings, where before every seed of A had to be on the same side of every seed of B, which more trainings
could only make less likely; and the controls with a free output were added after that layer had been seen to keep
U-Net from learning on validation patients. All this came before anything was tested on the cohort, and so did (7).

1. *Contradicts itself*: the paper's printed numbers or sentences exclude each other. Our runs do not enter.
2. *Cannot be told*: an arm was not trained here; fewer than {MIN_PATIENTS} test patients count in the score; an arm
   collapsed (every pixel background) in any seed, which is a failure of optimisation and says nothing of the
   architecture; or the claim is about slices or a need that nobody but the authors knows.
3. *A is higher than B in a score* (a difference, paired by slice): **holds** if its 95 % interval over patients and
   trainings excludes 0 in the claimed direction, and its permutation test over patients does (at most {LEVEL} after
   Holm over all differences of this ledger); **does not hold** if both exclude 0 in the other direction, or if the
   interval lies within ±{MARGIN}; else *cannot be told*, and the row says how many patients or trainings it would take,
   as far as this one's spread can tell. With one seed the interval is over patients alone, the verdict on these
   trained networks and not on the architectures, and the row says so.
4. *Both are accurate*: **holds** if for both the 95 % interval of mean Dice over SAH slices is above {GOOD_DICE};
   **does not hold** if one of them is below it; else *cannot be told*.
5. *Neither leads in every score*: **holds** if by (3) each has the higher value of one of Dice, IoU, precision and
   recall at least; **does not hold** if one has all four; else *cannot be told*.
6. *Training* (from the curves; at least {MIN_SEEDS} seeds and {MIN_EPOCHS} epochs, else *cannot be told*): a
   statement on a network **holds** if every seed shows it, **does not hold** if no seed of one network does, else
   *cannot be told*. A comparison **holds** if every seed of one network is on its side of every seed of the other,
   **does not hold** if that is so the other way round, or if all are equal.
7. *The printed ranking is not chance* (from the printed numbers alone; our runs do not enter): **holds** if the
   probability that it is false is at most {LEVEL} for {printed.SCANS} independent observations, as many as there are
   scans of {printed.SLICES_A_SCAN} slices, at every correlation of the networks' scores looked at; **does not hold** if
   it is above {LEVEL} even if all {printed.SLICES:,} slices are independent; else *cannot be told*.

The network that stands for the paper's U-Net is the one with the ResNet34 encoder where it was trained, else MONAI's
plain one; each measure names it. Dice and IoU of the whole test set are means over slices with empty against empty = 1;
precision, recall and F1 are means over batches: the printed numbers allow that pair, and it asks for nothing odd.
"""


@dataclass(frozen=True)
class Measure:
    """How a claim is decided. kind: "difference" (higher minus lower, > 0 if the claim is right), "accuracy",
    "complementary", "each run", "runs compared", "printed", "contradiction" or "unknowable".

    words      what is measured, or why nothing can be; "{unet}" is the name of PAPERS
    metric     of a difference, under `convention`, on the slices of `tercile` (all if ""); or one of curves.numbers
    higher, lower   arms, PAPERS among them. "each run" looks at all in `higher`
    name       of a number of a curve: what it is called before its values
    limit      "each run" shows the claim where its number is no further from 0; "end_level" is taken relative to
               the mean of `lower`
    """

    kind: str
    words: str
    metric: str = ""
    convention: str = ""
    higher: tuple[str, ...] = ()
    lower: str = ""
    tercile: str = ""
    where: str = ""
    name: str = ""
    limit: float = 0.0


def stands_for_unet(arms: Collection[str]) -> str:
    """Of the trained arms, the one that stands for the paper's U-Net."""
    return RESNET34 if RESNET34 in arms else UNET


def higher(metric: str, higher: str, lower: str, convention: str = "", tercile: str = "") -> Measure:
    convention = convention or transcript.TABLE_3_CONVENTIONS[metric]
    label = metrics.CONVENTIONS[convention].label
    on = f" with a lesion of the {tercile} third" if tercile else ""
    first, second = (MODELS.get(arm, "{unet}") for arm in (higher, lower))
    words = f"{metrics.LABELS[metric]} ({label}){on}, {first} minus {second}"
    return Measure("difference", words, metric, convention, (higher,), lower, tercile, "size" if tercile else "scores")


SAMPLE = "nobody else has the paper's samples, and its numbers for them disagree"
BOTH = (PAPERS, ATTENTION)
MEASURES = {
    "resnet34_helps": Measure(
        "runs compared", "upward steps of the validation loss over its whole drop, U-Net without minus with ResNet34",
        "roughness", higher=(UNET,), lower=RESNET34, where="training", name="steps up",
    ),
    "both_converge": Measure(
        "each run", "the lowest validation loss falls by at most 5 % of its whole drop in the last fifth of epochs",
        "late_gain", higher=BOTH, where="training", name="still falling by", limit=NEAR,
    ),
    "no_overfitting": Measure(
        "each run", "training loss falls, and validation loss in the last fifth of epochs is at most 10 % of its drop "
        "above its lowest", "late_rise", higher=BOTH, where="training", name="up again by", limit=0.1,
    ),
    "unet_converges_faster": Measure(
        "runs compared", "first epoch with a validation loss within 5 % of its drop of the lowest, Attention U-Net "
        "minus {unet}", "settled_epoch", higher=(ATTENTION,), lower=PAPERS, where="training", name="epoch",
    ),
    "unet_small_gap": Measure(
        "each run", "validation minus training loss in the last fifth of epochs, at most 10 % of the first validation "
        "loss either way", "late_gap", higher=(PAPERS,), where="training", name="gap", limit=0.1,
    ),
    "attention_fluctuates_early": Measure(
        "runs compared", "upward steps of the validation loss in the first fifth of epochs over its whole drop, "
        "Attention U-Net minus {unet}", "early_roughness", higher=(ATTENTION,), lower=PAPERS, where="training",
        name="early steps up",
    ),
    "same_end_level": Measure(
        "each run", "validation loss in the last fifth of epochs within 5 % of the mean of the seeds of {unet}",
        "end_level", higher=(ATTENTION,), lower=PAPERS, where="training", name="off by", limit=NEAR,
    ),
    "unet_finds_most_of_sample_1": Measure("unknowable", SAMPLE),
    "attention_better_on_every_sample": Measure(
        "contradiction", "higher in the text of 3.2, equal in Tables 1 and 2"),
    "attention_better_on_small": higher("dice", ATTENTION, PAPERS, "sah_slices", "small"),
    "unet_covers_more": higher("recall", PAPERS, ATTENTION, "sah_slices", "large"),
    "unet_precise_not_sensitive_on_sample_2": Measure("unknowable", SAMPLE),
    "both_accurate": Measure(
        "accuracy", "Dice (mean over SAH slices only, 0/0 = 0) of each", "dice", "sah_slices", BOTH, where="scores"),
    "unet_even_across_samples": Measure(
        "contradiction", "Dice is 0.57, 0.57, 0.73 in Table 1 and 0.59, 0.43, 0.67 in the text of 3.2"),
    "unet_recall_strong": Measure(
        "contradiction", "recall 0.31 on sample 2 is called low in 3.2; Table 3 has U-Net's recall the lower"),
    "attention_varies_more": Measure(
        "contradiction", "Tables 1 and 2 are the same, so one varies as the other"),
    "attention_drops_on_sample_2": Measure(
        "contradiction", "Dice on sample 2 is 0.38 in 3.3, 0.49 and praised in 3.2, and 0.57 in Table 2"),
    "attention_higher_dice": higher("dice", ATTENTION, PAPERS),
    "attention_higher_iou": higher("iou", ATTENTION, PAPERS),
    "attention_higher_recall": higher("recall", ATTENTION, PAPERS),
    "unet_higher_precision": higher("precision", PAPERS, ATTENTION),
    "attention_for_broad_coverage": higher("recall", ATTENTION, PAPERS, "pooled"),
    "unet_less_noise": higher("precision", PAPERS, ATTENTION, "pooled"),
    "unet_better_on_large": higher("dice", PAPERS, ATTENTION, "sah_slices", "large"),
    "complementary": Measure(
        "complementary", "who leads in Dice, IoU, precision and recall", higher=BOTH, where="scores"),
}  # fmt: skip

CHANCE = "printed_ranking_is_not_chance"
# No claims of the paper: what its claims on attention come to once the network is otherwise the same, and what the
# layer that MONAI's UNet has on its output takes from it.
CONTROLS = {
    "gates_raise_dice": ("the gates alone raise Dice", higher("dice", ATTENTION, OPEN)),
    "gates_raise_dice_on_sah": (
        "the gates alone raise Dice on SAH slices", higher("dice", ATTENTION, OPEN, "sah_slices")),
    "gates_raise_recall": ("the gates alone raise recall", higher("recall", ATTENTION, OPEN)),
    "gates_help_on_small": (
        "the gates alone help on small SAH", higher("dice", ATTENTION, OPEN, "sah_slices", "small")),
    "free_output_raises_dice": ("a free output alone raises the Dice of MONAI's UNet", higher("dice", FREE, UNET)),
    "free_output_raises_dice_on_sah": (
        "a free output alone raises its Dice on SAH slices", higher("dice", FREE, UNET, "sah_slices")),
    "attention_above_free_output": (
        "Attention U-Net has the higher Dice than a U-Net with a free output", higher("dice", ATTENTION, FREE)),
    "attention_above_free_output_on_sah": (
        "so it has on SAH slices", higher("dice", ATTENTION, FREE, "sah_slices")),
    CHANCE: ("the printed ranking in Dice is not chance", Measure(
        "printed", "probability that the printed lead in Dice is of the other sign, from the printed Dice and IoU",
        "dice", where="printed")),
}  # fmt: skip
