"""The rule of the claims ledger, written down before any result was seen; what was changed since, and when, it says."""

from __future__ import annotations

from collections.abc import Collection

from sahlib.paper import printed, transcript
from sahlib.paper.claims import Paper

HOLDS, FAILS, UNKNOWN, CONTRADICTS = "holds", "does not hold", "cannot be told", "contradicts itself"
VERDICTS = (HOLDS, FAILS, UNKNOWN, CONTRADICTS)
UNET, ATTENTION, OPEN, FREE = "unet", "attention_unet", "attention_unet_open_gates", "unet_free_output"

LEVEL = 0.05
MARGIN = 0.01  # a third of the smallest difference in Dice that the paper calls an advantage (0.029)
GOOD_DICE = 0.7  # "good overlap", Zijdenbos et al. 1994, IEEE TMI 13:716
MIN_SEEDS = 3  # 3 runs against 3 are wholly apart by chance in 1 of 20 cases in a given order
MIN_EPOCHS = 10
MIN_PATIENTS = 6  # with fewer no paired permutation test can reach 5 %: two-sided, 2 / 2**5 = 0.06


def rule(paper: Paper) -> str:
    """How the claims of a paper are judged, as Markdown."""
    seventh = f"""\
7. *The printed ranking is not chance* (from the printed numbers alone; our runs do not enter): **holds** if the
   probability that it is false is at most {LEVEL} for {printed.scans(paper)} independent observations, as many as
   there are scans of {printed.SLICES_A_SCAN} slices, at every correlation of the networks' scores looked at; **does
   not hold** if it is above {LEVEL} even if all {paper.slices:,} slices are independent; else *cannot be told*.
"""
    written = """\
Written down before the results, but for four things. The least number of patients in
(2) was added after a trial run had given a verdict from two patients; it only withholds verdicts. In (3) the interval
took in the trainings, where before every seed of A had to be on the same side of every seed of B, which more trainings
could only make less likely; and the controls with a free output were added after that layer had been seen to keep
U-Net from learning on validation patients. All this came before anything was tested on the cohort, and so did (7).\
"""
    if paper is not transcript.PAPER:
        written = "By the rule of the study that this program was written for, which is older than these masks."
    return f"""\
**How a verdict is reached.** {written}

1. *Contradicts itself*: the paper's printed numbers or sentences exclude each other. Our runs do not enter.
2. *Cannot be told*: there are no masks of an arm; fewer than {MIN_PATIENTS} test patients count in the score; an arm
   collapsed (every pixel background) in any seed, which is a failure of optimisation and says nothing of the
   architecture; or the claim is about slices or a need that nobody but the authors knows.
3. *A is higher than B in a score* (a difference, paired by slice): **holds** if its 95 % interval over patients and
   trainings excludes 0 in the claimed direction, and its permutation test over patients does (at most {LEVEL} after
   Holm over all differences of this ledger); **does not hold** if both exclude 0 in the other direction, or if the
   interval lies within ±{MARGIN}; else *cannot be told*, and the row says how many patients or trainings it would take,
   as far as this one's spread can tell. With one seed the interval is over patients alone, the verdict on these
   trained networks and not on the architectures, and the row says so.
4. *A score is reached* (both networks are accurate: {GOOD_DICE} in mean Dice over SAH slices, where the claim names no
   other): **holds** if the 95 % interval of every network named is above it; **does not hold** if one of them is below
   it; else *cannot be told*.
5. *Neither leads in every score*: **holds** if by (3) each has the higher value of one of Dice, IoU, precision and
   recall at least; **does not hold** if one has all four; else *cannot be told*.
6. *Training* (from the curves; at least {MIN_SEEDS} seeds and {MIN_EPOCHS} epochs, else *cannot be told*): a
   statement on a network **holds** if every seed shows it, **does not hold** if no seed of one network does, else
   *cannot be told*. A comparison **holds** if every seed of one network is on its side of every seed of the other,
   **does not hold** if that is so the other way round, or if all are equal.
{seventh if paper.slices else ""}
{paper.reading}
"""


def stands_for_unet(arms: Collection[str]) -> str:
    """Of the trained arms, the one that stands for the paper's U-Net."""
    return transcript.PAPER.stand_in(transcript.UNET, dict.fromkeys(arms))
