"""What all figures share: what is written is whole and repeatable, and what is shown has a text."""

import matplotlib
import numpy as np
import pandas as pd
import pytest
from helpers.drawn import SIZE, a_history, a_slice, a_table
from matplotlib.figure import Figure

from sahlib.figures import drawing, paper_plots
from sahlib.study import MODELS

# Saving


def test_every_file_is_there_and_no_temporary_one(tmp_path):
    image, mask = a_slice()
    figure = paper_plots.slice_and_mask(image, mask)
    data = paper_plots.areas(mask[None], ["a_01"])
    paths = drawing.save(figure, tmp_path / "new" / "folder", "figure_2", data, "  A slice.\n")
    names = sorted(path.name for path in (tmp_path / "new" / "folder").iterdir())
    assert names == ["figure_2.csv", "figure_2.png", "figure_2.svg", "figure_2.txt"]
    assert paths["txt"].read_text() == "A slice.\n"
    row = pd.read_csv(paths["csv"]).iloc[0]
    assert (row["slice"], row["lesion_pixels"]) == ("a_01", 32)
    assert row["lesion_percent"] == pytest.approx(100 * 32 / SIZE**2)


def test_equal_data_gives_equal_bytes(tmp_path):
    for folder in ("one", "two"):
        drawing.save(paper_plots.metric_bars(a_table()), tmp_path / folder, "figure_9", a_table(), "Bars.")
        image, mask = a_slice()
        drawing.save(paper_plots.slice_and_mask(image, mask), tmp_path / folder, "figure_2", a_table(), "Slice.")
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name


def test_saving_the_same_figure_twice_gives_equal_bytes(tmp_path):
    figure = paper_plots.training_curves({0: a_history()}, "U-Net")
    data = paper_plots.training_curves_data({0: a_history()})
    first = {k: p.read_bytes() for k, p in drawing.save(figure, tmp_path, "figure_5", data, "Curves.").items()}
    again = {k: p.read_bytes() for k, p in drawing.save(figure, tmp_path, "figure_5", data, "Curves.").items()}
    assert first == again


def test_a_failed_write_leaves_the_old_file_and_no_temporary_one(tmp_path, monkeypatch):
    image, mask = a_slice()
    figure, data = paper_plots.slice_and_mask(image, mask), pd.DataFrame({"a": [1]})
    paths = drawing.save(figure, tmp_path, "figure_2", data, "Old.")
    old = paths["csv"].read_bytes()

    def broken(self, path, **kwargs):
        path.write_text("half a t")
        raise RuntimeError("cut off")

    monkeypatch.setattr(pd.DataFrame, "to_csv", broken)
    with pytest.raises(RuntimeError, match="cut off"):
        drawing.save(figure, tmp_path, "figure_2", data, "New.")
    assert paths["csv"].read_bytes() == old
    assert len(list(tmp_path.iterdir())) == 4


def test_a_text_is_the_same_bytes_on_every_machine(tmp_path):
    assert drawing.save_text(tmp_path / "new" / "a.md", "– ü\n").read_bytes() == b"\xe2\x80\x93 \xc3\xbc\n"


def test_the_callers_settings_stay(tmp_path):
    before = dict(matplotlib.rcParams)
    drawing.save(paper_plots.metric_bars(a_table()), tmp_path, "figure_9", a_table(), "Bars.")
    assert dict(matplotlib.rcParams) == before


def test_every_network_has_its_own_colour():
    colours = [drawing.LOOKS[name].colour for name in MODELS]
    assert len(set(colours)) == len(MODELS)


def test_a_figure_is_shown_with_its_caption_as_alternative_text(tmp_path):
    figure = paper_plots.slice_and_mask(np.zeros((8, 8), np.uint8), np.zeros((8, 8), bool))
    caption = f"Figure 2. A slice & its mask. {'Which run it is of. ' * 20}"
    drawing.save(figure, tmp_path, "figure_2", pd.DataFrame({"a": [1]}), caption)
    content, metadata = figure._repr_mimebundle_(include=None, exclude=None)
    alt = metadata["image/png"]["alt"]
    assert alt.startswith("Figure 2. A slice & its mask.") and len(alt) < drawing.ALT_LENGTH
    assert (
        'alt="Figure 2. A slice &amp; its mask.' in content["text/html"]
        and content["image/png"] in content["text/html"]
    )


def test_an_alternative_text_is_whole_sentences_and_more_than_a_number():
    long = "Here is what it shows, at a length that no one wants to hear " * 5 + "to the end."
    assert drawing.alternative_text(f"Figure 7. {long} More.") == f"Figure 7. {long}"
    assert drawing.alternative_text("A caption of 0.05 mm. And more.") == "A caption of 0.05 mm. And more."


@pytest.mark.parametrize("size", [64, 512])
def test_an_outline_runs_outside_what_it_shows(size):
    """A lesion of one pixel's width, which a line along its edge would hide."""
    mask = np.zeros((size, size), bool)
    mask[size // 2, 10:30] = mask[0, 0] = True
    ax = Figure().subplots()
    drawing.outline(ax, mask)
    vertices = np.concatenate([path.vertices for path in ax.collections[0].get_paths()])
    rows, columns = np.nonzero(mask)
    apart = np.hypot(vertices[:, :1] - columns, vertices[:, 1:] - rows).min(1)
    assert apart.min() >= 1 and apart.max() < 2 + size / drawing.FINEST
