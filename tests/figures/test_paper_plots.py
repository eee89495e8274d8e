"""The data figures of the paper: what they show, and that the edge cases draw."""

import matplotlib
import numpy as np
import pandas as pd
import pytest
from helpers.drawn import a_history, a_slice, a_table, texts
from matplotlib.image import AxesImage

from sahlib.figures import drawing, paper_plots
from sahlib.study import MODELS

# Figure 2


@pytest.mark.parametrize("fill", [False, True])
def test_a_slice_with_an_empty_or_full_mask_draws(tmp_path, fill):
    image, mask = a_slice()
    mask[:] = fill
    drawing.save(paper_plots.slice_and_mask(image, mask), tmp_path, "f", paper_plots.areas(mask[None], ["a"]), "c")


# Figures 5 and 6


def test_curves_show_the_history_and_the_kept_epoch():
    figure = paper_plots.training_curves({0: a_history(), 1: a_history()}, "U-Net", "unet")
    loss, dice = figure.axes
    curves = [line.get_ydata() for line in dice.lines if line.get_linestyle() == "-"]
    np.testing.assert_allclose(curves, [a_history()["validation_dice"]] * 2)
    kept = [line.get_xdata() for line in loss.lines if line.get_marker() == "o"]
    np.testing.assert_array_equal(kept, [[3], [3]])
    validation = [line for line in loss.lines + dice.lines if line.get_linestyle() == "-"]
    assert {line.get_color() for line in validation} == {drawing.LOOKS["unet"].colour}


@pytest.mark.parametrize(
    "history",
    [
        a_history(1),
        a_history(1, train_loss=np.nan, validation_loss=np.nan, validation_dice=np.nan),
        a_history(4, train_loss=np.inf, validation_loss=np.nan, best=False),
        a_history(0),
    ],
)
def test_short_and_broken_histories_draw(tmp_path, history):
    figure = paper_plots.training_curves({0: history}, "U-Net")
    drawing.save(figure, tmp_path, "f", paper_plots.training_curves_data({0: history}), "c")
    said = "no finite value" in texts(figure)
    assert said == (not np.isfinite(history["train_loss"]).any())


def test_one_epoch_is_a_visible_point():
    loss = paper_plots.training_curves({0: a_history(1)}, "U-Net").axes[0]
    assert any(line.get_marker() == "." and len(line.get_xdata()) == 1 for line in loss.lines)


def test_histories_are_stacked_with_their_seed():
    data = paper_plots.training_curves_data({3: a_history(2), 5: a_history(2)})
    assert data["seed"].tolist() == [3, 3, 5, 5]
    assert data.columns[0] == "seed"


# Figure 7


def three_samples(k=3, networks=("U-Net", "Attention U-Net (collapsed: every pixel background)")):
    slices = [a_slice() for _ in range(k)]
    images, truth = (np.array(part) for part in zip(*slices, strict=True))
    predictions = {networks[0]: truth.copy(), **{name: np.zeros_like(truth) for name in networks[1:]}}
    dice = {name: [1.0 if masks.any() else 0.0] * k for name, masks in predictions.items()}
    return images, truth, predictions, dice, dice, [f"Sample {i + 1}" for i in range(k)]


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("networks", [("A", "B"), ("A", "B", "C")])
def test_a_row_per_sample_and_a_column_per_network(k, networks):
    figure = paper_plots.comparison(*three_samples(k, networks))
    assert len(figure.axes) == k * (len(networks) + 2)
    assert all(ax.findobj(AxesImage) for ax in figure.axes)
    assert texts(figure).count("Dice 1.00   IoU 1.00") == k


def test_the_prediction_panel_holds_the_prediction():
    images, truth, predictions, dice, iou, rows = three_samples(1)
    predictions["U-Net"][0, :5, :5] = True
    figure = paper_plots.comparison(images, truth, predictions, dice, iou, rows)
    shown = figure.axes[1].findobj(AxesImage)[0].get_array()
    np.testing.assert_array_equal(shown > 0, predictions["U-Net"][0])


def test_a_collapsed_network_is_called_so():
    figure = paper_plots.comparison(*three_samples())
    assert any("collapsed" in text for text in texts(figure))


def test_empty_masks_and_undefined_scores_draw(tmp_path):
    images, truth, predictions, dice, iou, rows = three_samples(1)
    truth[:] = False
    dice = {name: [np.nan] for name in dice}
    figure = paper_plots.comparison(images, truth, predictions, dice, dice, rows)
    data = paper_plots.comparison_data(truth, predictions, dice, dice, rows)
    drawing.save(figure, tmp_path, "f", data, "c")
    assert "Dice undefined   IoU undefined" in texts(figure)
    assert data["truth_pixels"].tolist() == [0, 0]
    assert data["predicted_pixels"].tolist() == [32, 0]


# Figure 8


@pytest.mark.parametrize("k", [1, 4, 6])
def test_a_grid_of_any_number_of_slices_draws(tmp_path, k):
    slices = [a_slice(lesion=bool(i % 2)) for i in range(k)]
    images, truth = (np.array(part) for part in zip(*slices, strict=True))
    labels = [f"slice {i}" for i in range(k)]
    figure = paper_plots.representative_slices(images, truth, labels)
    data = paper_plots.areas(truth, labels)
    drawing.save(figure, tmp_path, "f", data, "c")
    assert sum(bool(ax.findobj(AxesImage)) for ax in figure.axes) == k
    assert data["lesion_pixels"].tolist() == [32 * (i % 2) for i in range(k)]


# Figure 9


def test_bars_have_the_heights_of_the_table():
    ax = paper_plots.metric_bars(a_table()).axes[0]
    heights = sorted(bar.get_height() for bar in ax.patches)
    assert heights == pytest.approx(sorted(a_table()["value"]))
    assert ax.get_ylim()[0] == 0 and ax.get_yticks().max() == 1


def test_a_printed_value_is_hollow_and_has_the_colour_of_its_network():
    ax = paper_plots.metric_bars(a_table()).axes[0]
    colour = matplotlib.colors.to_rgba(drawing.LOOKS["unet"].colour)
    printed = [bar for bar in ax.patches if bar.get_hatch()]
    assert len(printed) == 5
    assert all(bar.get_facecolor()[:3] == (1, 1, 1) and bar.get_edgecolor() == colour for bar in printed)


@pytest.mark.parametrize("networks", [1, 2, 3])
def test_the_numbers_above_the_bars_do_not_overlap(networks):
    base = a_table()[lambda t: ~t["printed"] & (t["model"] == "unet")].assign(value=0.777)
    parts = [
        base.assign(model=name, series=name, printed=p) for name in tuple(MODELS)[:networks] for p in (False, True)
    ]
    figure = paper_plots.metric_bars(pd.concat(parts))
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert len(boxes) == 10 * networks
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_an_undefined_score_is_written_so_and_a_missing_one_left_out(tmp_path):
    table = a_table().iloc[:-1]
    table.loc[0, "value"] = np.nan
    figure = paper_plots.metric_bars(table)
    drawing.save(figure, tmp_path, "f", table, "c")
    assert texts(figure).count("n/a") == 1
    assert len(figure.axes[0].patches) == 14


def test_a_bar_given_twice_is_refused():
    with pytest.raises(ValueError, match="duplicate"):
        paper_plots.metric_bars(pd.concat([a_table(), a_table()]))
