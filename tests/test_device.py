"""Which device computes, and what is said of a GPU that is not used."""

from __future__ import annotations

import pytest
import torch

from sahlib import device
from sahlib.study import Study, StudyError

REASON = "The NVIDIA driver on your system is too old (found version 11040)."


@pytest.fixture
def unusable(tmp_path, monkeypatch):
    """A machine with an NVIDIA GPU whose driver torch refuses."""

    def refuse():
        raise RuntimeError(f"{REASON} Please update your GPU driver by downloading it.\nmore")

    (tmp_path / "nvidia0").touch()
    monkeypatch.setattr(device, "NODES", tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "init", refuse)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_a_gpu_that_torch_cannot_use_is_named_with_the_reason_and_the_way_out(unusable):
    with pytest.raises(StudyError) as error:
        Study.of_profile()
    assert REASON in str(error.value) and "--profile quick" in str(error.value) and "Please" not in str(error.value)
    assert Study.of_profile("quick").profile == "quick"


def test_a_torch_without_cuda_says_so_itself(unusable, monkeypatch):
    def refuse():
        raise AssertionError("Torch not compiled with CUDA enabled")

    monkeypatch.setattr(torch.cuda, "init", refuse)
    assert device.why_unused() == "Torch not compiled with CUDA enabled."


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_a_gpu_that_was_hidden_on_purpose_is_none(unusable, monkeypatch, hidden):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert Study.of_profile().profile == "quick"


def test_without_a_gpu_nothing_is_said(tmp_path, monkeypatch):
    (tmp_path / "nvidiactl").touch()  # the driver's, which is no GPU
    monkeypatch.setattr(device, "NODES", tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device.why_unused() == "" and Study.of_profile().profile == "quick" and device.device().type == "cpu"


@pytest.mark.parametrize("native", [True, False])
def test_bf16_is_taken_where_the_chip_multiplies_in_it(monkeypatch, native):
    asked = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **how: asked.append(how) or native)
    assert Study.of_profile().precision == ("bf16" if native else "fp32")
    assert Study.of_profile().profile == "paper" and asked[0] == {"including_emulation": False}
    assert Study.of_profile("paper", precision="fp32").precision == "fp32"


@pytest.mark.parametrize(
    ("capabilities", "precision"), [({"avx512_bf16": True}, "bf16"), ({"amx_bf16": True}, "bf16"), ({}, "fp32")]
)
def test_a_processor_says_what_it_can(monkeypatch, capabilities, precision):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert Study.of_profile("quick").precision == precision
