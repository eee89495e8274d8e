"""Networks of somebody else's: named, checked once, trained and found again, and refused in a sentence."""

from __future__ import annotations

import dataclasses
import sys
import textwrap

import pytest
from torch import nn

from sahlib.chapters import results
from sahlib.networks import models
from sahlib.study import Study, StudyError, name_of
from sahlib.training import loop, runs

CODE = """
from torch import nn

def build(channels, in_channels, out_channels):
    first, last = nn.Conv2d(in_channels, channels[0], 3, padding=1), nn.Conv2d(channels[0], out_channels, 1)
    return nn.Sequential(first, nn.ReLU(), last)

def halves(channels, in_channels, out_channels):
    return nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1)

def breaks(channels, in_channels, out_channels):
    raise RuntimeError("not today")

def tuples(channels, in_channels, out_channels):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(in_channels, out_channels, 1)
        def forward(self, x):
            return self.conv(x), x
    return Two()

def no_convolution(channels, in_channels, out_channels):
    return nn.Identity()

number = 3
"""


@pytest.fixture
def nets(tmp_path, monkeypatch):
    """The module their_nets, importable; the text of its file can be changed."""
    path = tmp_path / "their_nets.py"
    path.write_text(textwrap.dedent(CODE))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "their_nets", raising=False)
    return path


def test_a_foreign_network_is_built_and_named(nets):
    network = models.build("their_nets:build", (4, 8, 8, 8, 8), 2, 3, priors=[0.1, 0.2, 0.5])
    assert [type(m) for m in network] == [nn.Conv2d, nn.ReLU, nn.Conv2d] and network[0].in_channels == 2
    assert network[2].bias.tolist() == pytest.approx([-2.1972, -1.3863, 0.0], abs=1e-4)
    assert name_of("their_nets:build") == "build (their_nets)"
    models.require_usable("their_nets:build", (4, 8, 8, 8, 8), 1, 1, 32)


def test_it_is_trained_beside_the_others_and_again_when_its_code_changes(nets, small, tmp_path):
    study, store, split = small
    study = dataclasses.replace(study, models=("unet", "attention_unet", "their_nets:build"))
    run = loop.train(store, split, study, "their_nets:build", 0, tmp_path / "runs")
    assert run.path.parent.name == "their_nets-build" and run.model == "their_nets:build"
    assert loop.train(store, split, study, "their_nets:build", 0, tmp_path / "runs").path == run.path
    key = runs.run_key(store, split, study, "their_nets:build", 0)
    nets.write_text(nets.read_text() + "\n# another network\n")
    assert runs.digest(runs.run_key(store, split, study, "their_nets:build", 0)) != runs.digest(key)
    assert "code" not in runs.run_key(store, split, study, "unet", 0)


@pytest.mark.parametrize(("name", "says"), [
    ("nowhere_at_all:build", "cannot be imported .ModuleNotFoundError.*PYTHONPATH"),
    ("their_nets:missing", "cannot be imported .AttributeError"),
    ("their_nets:number", "is no function"),
    ("their_nets:breaks", "cannot be used on images of 32x32 .RuntimeError: not today"),
    ("their_nets:halves", r"returned .2, 1, 16, 16. for images of shape .2, 1, 32, 32."),
    ("their_nets:tuples", "returned tuple for images"),
    ("their_nets:no_convolution", "cannot be used"),
])  # fmt: skip
def test_what_cannot_be_used_is_refused_before_anything_is_trained(nets, small, name, says):
    study, store, _ = small
    study = dataclasses.replace(study, models=("unet", "attention_unet", name))

    class Prepared:
        processed = store.path.parent

    with pytest.raises(StudyError, match=says) as told:
        results.load_data(study, Prepared)
    assert "\n" not in str(told.value)


def test_a_name_that_is_neither_known_nor_foreign_is_refused():
    with pytest.raises(StudyError, match="unknown models: vnet; choose from unet"):
        Study(models=("unet", "attention_unet", "vnet"))
