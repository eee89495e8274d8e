"""The overview's figure: it shows the table's numbers, greys what is not done, and keeps all on the page."""

import pytest
from helpers.fabricated_sweep import begin, begin_sweep, counts_of, finish
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex

from sahlib.figures import drawing
from sahlib.figures.overview_plot import forest
from sahlib.sweep import overview, run_states


@pytest.fixture
def runs(tmp_path):
    return tmp_path / "runs"


def texts(figure):
    FigureCanvasAgg(figure).draw()
    (ax,) = figure.axes
    return {text.get_text(): text for text in (*ax.texts, *ax.get_yticklabels())}


def test_forest_shows_interval_mean_and_seeds(runs):
    begin_sweep(runs)
    rows = overview.table(run_states.gather(runs))
    figure = forest(rows)
    (ax,) = figure.axes
    intervals = {
        tuple(segment[:, 0]): segment[0, 1] for own in ax.collections for segment in own.get_segments()
    }  # ends -> height
    points = {(x, round(y, 2)) for line in ax.lines for x, y in line.get_xydata()}
    tested = rows[rows["seeds_tested"] > 0]
    assert len(tested) == len(intervals) == 2
    for row in tested.itertuples():
        at = intervals[row.low, row.high]
        assert (row.dice, at) in points
        assert len(row.seed_scores) == 2
        assert all((score, round(at + 0.32, 2)) in points for score in row.seed_scores)
    low, high = ax.get_xlim()
    assert all(low <= x <= high for x, _ in points)
    assert {line.get_marker() for line in ax.lines} == {"o", "^", "."}


def test_forest_is_grey_where_runs_are_missing(runs):
    begin_sweep(runs)
    figure = forest(overview.table(run_states.gather(runs)))
    (ax,) = figure.axes
    colours = [to_hex(label.get_color()) for label in ax.get_yticklabels()]
    assert colours == [drawing.OTHER, "#000000", drawing.OTHER]  # U-Net waits for a seed; the prior row for all
    assert {"phantom, paper", "phantom, prior", "U-Net", "1 interrupted"} <= set(texts(figure))


@pytest.mark.parametrize("case", ["many", "one", "untested", "none"])
def test_forest_keeps_all_on_the_page(runs, case):
    if case == "many":
        for size in (32, 64, 96):
            for rate in (1e-4, 3e-4, 1e-3):
                for model in ("unet", "attention_unet_open_gates"):
                    path = begin(runs, model, folds=5, size=size, prior_bias=True, learning_rate=rate)
                    (path / "failed.txt").write_text("The disk is full.")
                    begin(runs, model, 1, folds=5, size=size, prior_bias=True, learning_rate=rate)
    elif case == "one":
        finish(begin(runs), counts_of(["A"]))
    elif case == "untested":
        begin(runs)
    figure = forest(overview.table(run_states.gather(runs)))
    drawn = texts(figure)
    boxes = sorted((label.get_window_extent() for label in figure.axes[0].get_yticklabels()), key=lambda box: box.y0)
    assert all(below.y1 < above.y0 for below, above in zip(boxes[:-1], boxes[1:], strict=True))
    for text, artist in drawn.items():
        box = artist.get_window_extent().transformed(figure.transFigure.inverted())
        assert box.x0 > -0.01, text
        assert box.x1 < 1.01, text
