"""What the paper's printed Dice and IoU allow, drawn: shares of perfect slices."""

from __future__ import annotations

from matplotlib.figure import Figure

from sahlib.figures.drawing import COLOURS, WIDTH, styled
from sahlib.paper import printed, transcript
from sahlib.paper.printed import BEST_SAMPLE, NETWORKS, imperfect_dice, perfect_ceiling, share_above
from sahlib.study import MODELS


@styled
def perfect_slices() -> Figure:
    """Share of perfect slices that the printed Dice and IoU allow, against the best Dice among the imperfect ones."""
    data = printed.perfect_slices_curves()
    figure = Figure(figsize=(WIDTH, 3.5), layout="constrained")
    figure.get_layout_engine().set(wspace=0.05)
    for ax, model in zip(figure.subplots(1, 2, sharey=True), NETWORKS, strict=True):
        own, colour = data[data["model"] == model], COLOURS[model]
        dice, iou = transcript.TABLE_3.value("dice", model), transcript.TABLE_3.value("iou", model)
        t, floor, ceiling = own["cap"], own["floor"], perfect_ceiling(dice, iou)
        ax.fill_between(t, floor, ceiling, color=colour, alpha=0.18, linewidth=0)
        ax.fill_between(t, own["floor_low"], own["floor_high"], color=colour, alpha=0.35, linewidth=0)
        ax.plot(t, floor, color=colour)
        ax.plot([t.iloc[0], 1], [ceiling, ceiling], color=colour, linestyle=(0, (4, 2)))
        alike, capped = imperfect_dice(dice, iou), share_above(dice, iou, BEST_SAMPLE)
        ax.plot(alike, ceiling, "o", color=colour, markersize=5, zorder=4)
        ax.plot(BEST_SAMPLE, capped, "s", color=colour, markersize=5, zorder=4)
        arrow = {"arrowstyle": "-", "color": "0.4", "linewidth": 0.6, "shrinkB": 4}
        text = {"textcoords": "offset points", "arrowprops": arrow, "fontsize": 7.5}
        ax.annotate(
            f"all imperfect slices alike:\n{ceiling:.0%} perfect,\nthe rest have Dice {alike:.2f}",
            (alike, ceiling), xytext=(-24, -66), ha="left", **text,
        )  # fmt: skip
        ax.annotate(
            f"no imperfect slice above {BEST_SAMPLE:.2f},\nthe best the paper prints:\nat least {capped:.0%} perfect",
            (BEST_SAMPLE, capped), xytext=(-60, -112), ha="left", **text,
        )  # fmt: skip
        ax.text(0.985, ceiling + 0.015, f"at most {ceiling:.0%} perfect", ha="right", va="bottom", fontsize=7.5)
        ax.set(title=f"{MODELS[model]}: printed Dice {dice:.3f}, IoU {iou:.3f}", xlim=(0.15, 1), ylim=(0, 1))
        ax.set_xlabel("Highest Dice among the imperfect slices")
        ax.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
        ax.grid(color="0.9", linewidth=0.6)
        ax.set_axisbelow(True)
    figure.axes[0].set_ylabel("Share of perfect slices (Dice = 1)")
    figure.suptitle("Most of the paper's test slices must be perfect or nearly so, which empty slices are for free")
    return figure
