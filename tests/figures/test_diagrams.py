"""The diagrams tell the truth: blocks against MONAI's source by hand, parameters against torch, text against text."""

import matplotlib
import pandas as pd
import pytest

from sahlib.figures import diagrams, drawing
from sahlib.networks import architecture
from sahlib.networks.models import build
from sahlib.study import MODELS, Study

PAPER = (32, 64, 128, 256, 512)
QUICK = (16, 32, 64, 128, 256)
DRAWN = ("unet", "unet_resnet34", "attention_unet", "attention_unet_open_gates")
SPLIT = {"train": 200, "validation": 40, "test": 60}


@pytest.fixture(scope="module")
def tables():
    """Blocks and network, for every network at the two profiles' sizes."""
    made = {}
    for channels, size in ((PAPER, 256), (QUICK, 128)):
        for name in DRAWN:
            network = build(name, channels)
            made[name, size] = architecture.blocks(network, size), network
    return made


def read(table):
    return [(row.block, row.channels, row.size) for row in table.itertuples()]


def overlaps(figure):
    """Pairs of texts that lie on one another, and texts outside the figure."""
    figure.draw_without_rendering()
    inside = figure.bbox
    items = [t for t in figure.findobj(matplotlib.text.Text) if t.get_text() and t.get_visible()]
    boxes = [(t.get_text(), t.get_window_extent()) for t in items if not t.axes or t.axes.axison or t in t.axes.texts]
    pairs = [(a, b) for i, (a, x) in enumerate(boxes) for b, y in boxes[:i] if x.overlaps(y)]
    return pairs + [a for a, x in boxes if x.x0 < 0 or x.y0 < 0 or x.x1 > inside.x1 or x.y1 > inside.y1]


# Reading a network


def test_unet_by_hand(tables):
    # Encoder k halves first, so 256 pixels are met only at the two ends; the bottom keeps the resolution (stride 1).
    assert read(tables["unet", 256][0]) == [
        ("Input", 1, 256),
        ("Encoder 1", 32, 128),
        ("Encoder 2", 64, 64),
        ("Encoder 3", 128, 32),
        ("Encoder 4", 256, 16),
        ("Bottom", 512, 16),
        ("Decoder 4", 128, 32),
        ("Decoder 3", 64, 64),
        ("Decoder 2", 32, 128),
        ("Decoder 1", 1, 256),
    ]


def test_attention_unet_by_hand(tables):
    # Five widths have four skips and a gate on each, with half the skip's channels inside (AttentionLayer: f_int).
    assert read(tables["attention_unet", 256][0]) == [
        ("Input", 1, 256),
        ("Encoder 1", 32, 256),
        ("Encoder 2", 64, 128),
        ("Encoder 3", 128, 64),
        ("Encoder 4", 256, 32),
        ("Bottom", 512, 16),
        ("Up 4", 256, 32),
        ("Gate 4", 128, 32),
        ("Decoder 4", 256, 32),
        ("Up 3", 128, 64),
        ("Gate 3", 64, 64),
        ("Decoder 3", 128, 64),
        ("Up 2", 64, 128),
        ("Gate 2", 32, 128),
        ("Decoder 2", 64, 128),
        ("Up 1", 32, 256),
        ("Gate 1", 16, 256),
        ("Decoder 1", 32, 256),
        ("Output", 1, 256),
    ]


def test_unet_resnet34_by_hand(tables):
    table = tables["unet_resnet34", 256][0].set_index("block")
    encoder = table.loc[["Encoder 1", "Encoder 2", "Encoder 3", "Encoder 4", "Bottom"]]
    assert encoder["channels"].tolist() == [64, 64, 128, 256, 512]
    assert encoder["size"].tolist() == [128, 64, 32, 16, 8]
    # ResNet34: 1 + 2 * (3 + 4 + 6 + 3) convolutions; its shortcuts (type A) have none.
    assert encoder["convolutions"].tolist() == [1, 6, 8, 12, 6]
    assert encoder["resampling"].tolist()[:2] == ["7×7 convolution, stride 2", "3×3 max pooling, stride 2"]
    assert table.loc["Decoder 0", "joins"] == ""  # nothing of the encoder is left at full resolution
    assert table.loc["Output", ["channels", "size"]].tolist() == [1, 256]


@pytest.mark.parametrize("size", [256, 128])
@pytest.mark.parametrize("name", DRAWN)
def test_every_parameter_and_every_joined_channel_is_accounted_for(tables, name, size):
    table, network = tables[name, size]
    assert table["parameters"].sum() == sum(p.numel() for p in network.parameters())
    channels = table.set_index("block")["channels"]
    main = table[table["kind"] != "gate"].reset_index(drop=True)
    before = main["channels"].shift(1)
    joined = main["joins"].map(channels).fillna(0)
    pd.testing.assert_series_equal(
        main["in_channels"][1:].astype(float), (before + joined)[1:].astype(float), check_names=False
    )


@pytest.mark.parametrize("name", DRAWN)
def test_other_widths_and_sizes_change_the_data(tables, name):
    paper, quick = tables[name, 256][0], tables[name, 128][0]
    assert paper["block"].tolist() == quick["block"].tolist()
    assert (paper["size"] == 2 * quick["size"]).all()
    assert paper["channels"].tolist() != quick["channels"].tolist()


def test_reading_leaves_the_network_as_it_was():
    import torch

    network = build("attention_unet", (4, 8, 8, 8, 8)).train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    architecture.blocks(network, 32)
    assert network.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())


@pytest.mark.parametrize("name", DRAWN)
def test_an_image_of_several_windows_enters_by_as_many_channels(name):
    table = architecture.blocks(build(name, (4, 8, 8, 8, 8), in_channels=3), 32).set_index("block")
    assert table.loc["Input", ["in_channels", "channels"]].tolist() == [3, 3]
    assert table["in_channels"].iloc[1] == 3


def test_a_network_of_another_kind_is_refused():
    from torch import nn

    with pytest.raises(ValueError, match="Conv2d"):
        architecture.blocks(nn.Conv2d(1, 1, 3), 32)


@pytest.mark.parametrize("name", DRAWN)
def test_a_network_that_has_parts_of_the_same_names_is_refused_too(name):
    """Other libraries' U-Nets have an encoder with layer4 and a segmentation_head as MONAI's has."""
    from torch import nn

    class Unet(nn.Module):
        def __init__(self):
            super().__init__()
            for part, module in build(name, (4, 8, 8, 8, 8)).named_children():
                self.add_module(part, module)

    with pytest.raises(ValueError, match="^Unet: only MONAI's"):
        architecture.blocks(Unet(), 32)


# Drawing it


@pytest.mark.parametrize("size", [256, 128])
@pytest.mark.parametrize("name", DRAWN)
def test_no_text_of_an_architecture_lies_on_another(tables, name, size):
    table, _ = tables[name, size]
    figure = diagrams.architecture(table, MODELS[name])
    assert overlaps(figure) == []
    assert f"{table['parameters'].sum():,} parameters" in figure.get_suptitle()
    circles = [c for c in figure.findobj(matplotlib.patches.Circle) if c.get_visible()]
    assert len(circles) == (table["kind"] == "gate").sum() == (4 if name == "attention_unet" else 0)


def test_an_architecture_is_saved_with_equal_bytes(tmp_path):
    for folder in ("one", "two"):
        network = build("attention_unet", (4, 8, 8, 8, 8))
        data = architecture.blocks(network, 32)
        figure = diagrams.architecture(data, "A")
        drawing.save(figure, tmp_path / folder, "figure_4", data, "Network.")
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name


# The workflow


def test_the_workflow_tells_the_study():
    study = Study(size=128, epochs=7, learning_rate=1e-3, seeds=(0, 1), models=("unet", "attention_unet"))
    steps = diagrams.workflow_steps(study, 300, 12, SPLIT, "HU")
    text = " ".join(f"{title} {detail}" for title, detail in steps)
    for part in ("300 CT slices", "12 patients", "200 / 40 / 60", "128 × 128", "7 epochs", "0.001", "2 seeds", "80 HU"):
        assert part in text, part
    assert [title for title, _ in steps if title.startswith(diagrams.NETWORK)] == [
        "Network: U-Net",
        "Network: Attention U-Net",
    ]
    assert steps[0][0] == "Data"
    assert "random flips (p = 0.5) and rotations (±15°); the best" in text
    travels = dict(diagrams.workflow_steps(study.under("travels", 1e-3), 300, 12, SPLIT, "HU"))["Training"]
    assert "; random windows, grey scales" in travels and "15°" not in travels


def test_the_workflow_owns_up_to_slices_without_patients():
    study = Study(dataset="paired_folder", data_dir="mine", slices_are_patients=True)
    steps = dict(diagrams.workflow_steps(study, 300, 300, SPLIT, "grey"))
    assert "By slice" in steps["Split"] and "patient" not in steps["Data"]
    assert "HU" not in steps["Preprocessing"]
    told = Study(dataset="paired_folder", data_dir="mine", grey_window="brain")
    steps = dict(diagrams.workflow_steps(told, 300, 9, SPLIT, "HU"))
    assert "Brain window, level 40, width 80 HU" in steps["Preprocessing"]


@pytest.mark.parametrize("models", [("unet", "attention_unet"), tuple(MODELS)])
@pytest.mark.parametrize("profile", ["paper", "quick"])
def test_no_text_of_the_workflow_lies_on_another(models, profile):
    study = Study.of_profile(profile, models=models, seeds=tuple(range(5)))
    figure = diagrams.workflow(diagrams.workflow_steps(study, 12345, 678, SPLIT, "HU"))
    assert overlaps(figure) == []
    texts = [t.get_text().replace("\n", " ") for t in figure.axes[0].texts]
    assert {MODELS[m] for m in models} <= set(texts)
