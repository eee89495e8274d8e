"""The evidence figures: what is drawn is what the data says, every text is on the page, and the edge cases draw."""

import functools

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.image import AxesImage

from sahlib.figures import drawing, evidence_plots, probability_plots
from sahlib.figures.drawing import LOOKS, looks
from sahlib.paper import transcript
from sahlib.paper.transcript import PAPER
from sahlib.scoring import baselines, calibration, metrics, volumes
from sahlib.study import MODELS

ARMS = ("unet", "attention_unet", "attention_unet_open_gates")
SERIES = (*ARMS, baselines.BACKGROUND, baselines.THRESHOLD)


def some_counts(seed, slices=40):
    """Every tenth slice bleeds; a lesion of 50 pixels is half found."""
    rng = np.random.default_rng(seed)
    lesion = np.where(np.arange(slices) % 10 == 0, 50, 0)
    tp = (lesion * rng.uniform(0.4, 0.8, slices)).astype(int)
    fp = np.where(rng.random(slices) < 0.2, 8, 0)
    table = pd.DataFrame({"tp": tp, "fp": fp, "fn": lesion - tp, "tn": 1000 - lesion - fp})
    return table.assign(patient_id=[f"p{k // 8}" for k in range(slices)])


def some_scores(seeds=2):
    return _some_scores(seeds).copy()


@functools.cache
def _some_scores(seeds):
    parts = []
    for k, name in enumerate(SERIES):
        for seed in range(seeds if name in ARMS else 1):
            counts = some_counts(10 * k + seed)
            if name == baselines.BACKGROUND:
                counts = metrics.background_everywhere(counts)
            parts.append(metrics.all_scores(counts).assign(series=name, seed=seed, label=MODELS.get(name, name)))
    table = pd.concat(parts, ignore_index=True)
    return table.assign(convention_label=[metrics.CONVENTIONS[c].label for c in table["convention"]])


def drawn(table):
    return evidence_plots.conventions(evidence_plots.conventions_data(table, PAPER))


def drawn_volumes(table):
    return evidence_plots.bland_altman(evidence_plots.bland_altman_data(table))


def some_volumes(**changes):
    rng = np.random.default_rng(0)
    truth = rng.uniform(0, 40, 12)
    off = rng.normal(-2, 3, 12)
    table = pd.DataFrame({"patient_id": [f"p{k}" for k in range(12)], "slices": 30, "truth_ml": truth})
    table = table.assign(predicted_ml=truth + off, mean_ml=truth + off / 2, difference_ml=off, reason="")
    return table.assign(label=changes.get("series"), **changes)


def some_bins(seed=0):
    rng = np.random.default_rng(seed)
    probabilities = rng.random((3, 16, 16)) ** 3
    truth = rng.random(probabilities.shape) < probabilities
    images = np.where(rng.random(truth.shape) < 0.5, 0, 90).astype(np.uint8)
    return calibration.reliability_bins(probabilities, truth, images).assign(series=ARMS[seed], label=ARMS[seed])


def some_gates(slices=2, size=32):
    y, x = np.mgrid[:size, :size]
    image = np.where((y - 16) ** 2 + (x - 16) ** 2 < 150, 90, 0).astype(np.uint8)
    truth = np.zeros((slices, size, size), bool)
    truth[0, 8:16, 8:16] = True
    maps = [np.full((slices, n, n), 0.4) for n in (32, 16, 8)]
    maps[2][:, 2:4, 2:4] = 0.9  # the 8x8 level's pixels under the lesion
    return np.stack([image] * slices), truth, maps, ["Level 1", "Level 2", "Level 3"]


def strata(series=SERIES):
    rows = [(s, t, 0.3 + 0.1 * k, 0.2, 0.9) for s in series for k, t in enumerate(("small", "medium", "large"))]
    return pd.DataFrame(rows, columns=["series", "tercile", "estimate", "low", "high"]).assign(label="a")


def texts(figure):
    return [t.get_text() for t in figure.findobj(matplotlib.text.Text) if t.get_text() and t.get_visible()]


def panels(figure):
    return [ax for ax in figure.findobj(matplotlib.axes.Axes) if ax.get_visible() and ax.axison]


def points(ax, colour):
    """x of the markers drawn in a colour."""
    return [x for line in ax.lines if line.get_marker() not in ("None", None, "") for x in line.get_xdata()
            if to_hex(line.get_color()) == colour.lower()]  # fmt: skip


def assert_on_the_page(figure):
    canvas = FigureCanvasAgg(figure)
    with matplotlib.rc_context(drawing.STYLE):
        canvas.draw()
    page, drawn = figure.bbox_inches, figure.get_tightbbox(canvas.get_renderer())
    slack = 0.5 / figure.dpi
    assert drawn.x0 >= -slack and drawn.y0 >= -slack
    assert drawn.x1 <= page.x1 + slack and drawn.y1 <= page.y1 + slack


DRAWN = {
    "conventions": lambda: drawn(some_scores()),
    "size_strata": lambda: evidence_plots.size_strata(strata()),
    "bland_altman": lambda: drawn_volumes(pd.concat([some_volumes(series=s) for s in (*SERIES, "unet_resnet34")])),
    "bland_altman of one": lambda: drawn_volumes(some_volumes(series="unet")),
    "bland_altman of nothing": lambda: drawn_volumes(some_volumes(series="unet", mean_ml=np.nan, difference_ml=np.nan)),
    "reliability": lambda: probability_plots.reliability(pd.concat([some_bins(k) for k in range(3)])),
    "gate_maps": lambda: probability_plots.gate_maps(*some_gates(4), ["a long name of a slice", "b", "c", "d"]),
    "gate_maps of one slice": lambda: probability_plots.gate_maps(*some_gates(1), ["a"]),
}


@pytest.mark.parametrize("name", DRAWN)
def test_every_text_is_on_the_page_and_the_callers_style_is_left_alone(name):
    before = dict(matplotlib.rcParams)
    figure = DRAWN[name]()
    assert dict(matplotlib.rcParams) == before
    assert_on_the_page(figure)


def test_a_figure_is_saved_with_its_data(tmp_path):
    table = some_scores(seeds=1)
    data = evidence_plots.conventions_data(table, PAPER)
    paths = drawing.save(evidence_plots.conventions(data), tmp_path, "figure_10", data, "All conventions.")
    assert all(path.stat().st_size for path in paths.values())
    pd.testing.assert_frame_equal(pd.read_csv(paths["csv"], keep_default_na=False, na_values=[]).iloc[:, :1],
                                  data.iloc[:, :1], check_dtype=False)  # fmt: skip


# Conventions


def test_conventions_data_by_hand():
    row = {"metric": "dice", "convention": "pooled", "convention_label": "all", "series": "unet", "label": "U-Net"}
    data = evidence_plots.conventions_data(pd.DataFrame([{**row, "value": 0.2}, {**row, "value": 0.6}]), PAPER)
    ours, printed = data[~data["printed"]], data[data["printed"]]
    assert ours[["value", "low", "high", "seeds"]].values.tolist() == [[pytest.approx(0.4), 0.2, 0.6, 2]]
    assert ours["label"].tolist() == ["U-Net"] and ours["convention_label"].tolist() == ["all"]
    assert printed[["series", "value"]].values.tolist() == [["unet", 0.867], ["attention_unet", 0.896]]


def test_background_everywhere_is_drawn_where_the_scores_put_it_and_says_what_it_is():
    scores = some_scores()
    figure = drawn(scores)
    dice = panels(figure)[0]
    expected = scores[(scores["series"] == baselines.BACKGROUND) & (scores["metric"] == "dice")]
    markers = points(dice, LOOKS[baselines.BACKGROUND].colour)
    assert sorted(markers) == pytest.approx(sorted(expected["value"].dropna()))
    assert max(markers) == pytest.approx(0.9)  # nine slices in ten are empty
    assert "0.900 for finding nothing" in texts(figure)


def test_the_papers_numbers_are_lines_in_every_panel():
    figure = drawn(some_scores())
    assert len(panels(figure)) == len(metrics.METRICS)
    for ax, metric in zip(panels(figure), PAPER.printed, strict=False):
        lines = {to_hex(line.get_color()): line.get_xdata()[0] for line in ax.lines[:2]}
        for model, network in (("unet", transcript.UNET), ("attention_unet", transcript.ATTENTION)):
            assert lines[LOOKS[model].colour.lower()] == PAPER.value(metric, network)
    assert {"paper, U-Net: 0.867", "paper, Attention U-Net: 0.896"} <= set(texts(figure))


def test_a_collapse_and_a_further_convention_are_said():
    scores = some_scores(seeds=1)
    soft = scores[scores["convention"] == "pooled"].assign(convention="soft", convention_label="soft, pooled")
    table = pd.concat([scores, soft])
    table["label"] = ["U-Net (collapsed)" if s == "unet" else s for s in table["series"]]
    shown = texts(drawn(table))
    assert "U-Net (collapsed)" in shown and "soft, pooled" in shown


def test_an_undefined_score_has_no_marker_and_the_legend_says_so():
    scores = some_scores(seeds=1)
    assert scores["value"].isna().any()  # precision of background everywhere, 0/0 left out
    assert "no marker: the score is undefined" in texts(drawn(scores))
    assert "no marker: the score is undefined" not in texts(drawn(scores.fillna({"value": 0.5})))


def test_every_series_has_its_own_colour_and_marker():
    names = [*MODELS, baselines.BACKGROUND, baselines.THRESHOLD, "nnU-Net", "second reader"]
    for own in (looks(names), looks(["a", "b", "c", "d", "e", "f", baselines.BACKGROUND])):
        colours, markers = {look.colour.lower() for look in own.values()}, {look.marker for look in own.values()}
        assert len(colours) == len(markers) == len(own)
    assert looks(names)["unet"] == looks(["x", "unet"])["unet"] == LOOKS["unet"]
    assert looks(["x", "y"]) == {"x": LOOKS["unet"], "y": LOOKS["attention_unet"]}


# Strata


def test_strata_are_drawn_at_their_estimates():
    table = strata()
    table.loc[0, ["estimate", "low", "high"]] = np.nan
    figure = evidence_plots.size_strata(table)
    (ax,) = panels(figure)
    unet = [line for line in ax.lines if to_hex(line.get_color()) == LOOKS["unet"].colour.lower()]
    np.testing.assert_allclose(unet[0].get_ydata(), [np.nan, 0.4, 0.5])
    assert ax.get_ylim() == (0, 1) and "Dice (interval: 95 %)" in texts(figure)


# Volumes


def test_bland_altman_shows_the_numbers_of_the_library():
    data = pd.concat([some_volumes(series="unet"), some_volumes(series="attention_unet", difference_ml=1.0)])
    agreement = volumes.bland_altman(some_volumes())
    figure = drawn_volumes(data)
    bias = f"bias {agreement['bias_ml']:+.1f} mL".replace("-", "\N{MINUS SIGN}")
    assert any(bias in text and "12 patients" in text for text in texts(figure))
    assert panels(figure)[0].get_ylim() == panels(figure)[1].get_ylim()
    table = evidence_plots.bland_altman_data(data)
    assert table.groupby("series")["bias_ml"].first()["attention_unet"] == 1 and len(table) == 24


def test_a_series_that_is_far_off_gets_its_own_scale_and_says_so():
    far = some_volumes(series=baselines.THRESHOLD, difference_ml=np.linspace(300, 500, 12))
    figure = drawn_volumes(pd.concat([*(some_volumes(series=s) for s in ARMS), far]))
    limits = [ax.get_ylim() for ax in panels(figure)]
    assert limits[0] == limits[1] == limits[2] and limits[3][1] > 400 > limits[0][1]
    assert sum("own\N{NO-BREAK SPACE}scale" in text for text in texts(figure)) == 1


def test_patients_without_a_volume_are_counted():
    data = some_volumes(series="unet")
    data.loc[:2, ["mean_ml", "difference_ml"]] = np.nan
    assert any("9 patients, 3 without a volume" in t for t in texts(drawn_volumes(data)))
    unknown = some_volumes(series="unet", mean_ml=np.nan, difference_ml=np.nan)
    assert "no volume of 12 patients is known" in texts(drawn_volumes(unknown))
    one = some_volumes(series="unet").iloc[:1]
    assert not any("limits" in t for t in texts(drawn_volumes(one)))


# Calibration


def test_reliability_draws_each_region_and_marks_thin_bins():
    bins = some_bins()
    assert (bins["pixels"] < probability_plots.FEW_PIXELS).any()
    figure = probability_plots.reliability(bins.assign(label="U-Net (collapsed)"))
    shown = texts(figure)
    assert {"All pixels", "Head", "U-Net (collapsed)", "hollow: fewer than 100 pixels"} <= set(shown)
    curve = panels(figure)[0].lines[1]
    whole = bins[(bins["region"] == "all pixels") & (bins["pixels"] > 0)]
    np.testing.assert_allclose(curve.get_ydata(), whole["lesion_share"])


def test_a_network_that_says_the_same_everywhere_draws():
    truth = np.zeros((1, 8, 8), bool)
    bins = calibration.reliability_bins(np.zeros(truth.shape), truth, np.zeros(truth.shape, np.uint8))
    assert_on_the_page(probability_plots.reliability(bins.assign(series="unet", label="U-Net")))


# Gates


def test_gate_maps_lie_over_the_slice_on_one_scale():
    images, truth, maps, titles = some_gates()
    figure = probability_plots.gate_maps(images, truth, maps, titles, ["first", "second"])
    shown = [im for ax in panels(figure) for im in ax.get_images() if isinstance(im, AxesImage)]
    shown = [im for im in shown if im.get_cmap().name == "viridis"]
    assert len(shown) == 6 and {im.get_clim() for im in shown} == {(0, 1)}
    assert {tuple(im.get_extent()) for im in shown} == {(-0.5, 31.5, 31.5, -0.5)}
    assert {"Level 3", "first", "0.40 to 0.90", "0.40 to 0.40"} <= set(texts(figure))


def test_gate_means_inside_and_outside_by_hand():
    data = probability_plots.gate_maps_data(*some_gates()[1:], ["0", "1"]).set_index(["slice", "level"])
    assert data.loc[("0", "Level 3"), "inside"] == pytest.approx(0.9)
    assert data.loc[("0", "Level 3"), "outside"] == pytest.approx(0.4)
    assert data.loc[("0", "Level 1"), ["inside", "outside"]].tolist() == pytest.approx([0.4, 0.4])
    assert np.isnan(data.loc[("1", "Level 3"), "inside"])  # no lesion
    assert data.loc[("0", "Level 3"), ["height", "least", "greatest"]].tolist() == [8, 0.4, 0.9]
