"""A captured step, as far as it can be told without a GPU; with one, that it learns what the plain step learns."""

import dataclasses
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
import torch
from safetensors.torch import load_file

from sahlib.networks import models
from sahlib.study import AUGMENTATIONS, Study
from sahlib.training import augment, graph, loop, step

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def learner(study, model="attention_unet", device="cpu"):
    network = loop.initial_network(study, model, 0, [0.02]).to(device, memory_format=torch.channels_last)
    optimizer = step.make_optimizer(network, study)
    return network, optimizer, step.training_step(network, optimizer, study, slices=0, steps=1)


def state(network, optimizer):
    moments = [t for s in optimizer.state.values() for t in s.values()]
    return [t.clone() for t in [*network.state_dict().values(), *moments]]


@pytest.mark.parametrize("steps_before", [0, 2])
def test_undone_puts_weights_statistics_and_moments_back_in_place(steps_before):
    study = Study.of_profile("smoke", precision="fp32")
    network, optimizer, learn = learner(study)
    batch = step.blank_batch(network, study)
    for _ in range(steps_before):
        learn(*batch)
    before, places = state(network, optimizer), [p.data_ptr() for p in network.parameters()]
    with graph.undone(network, optimizer):
        learn(*batch)
        assert any(not torch.equal(a, b) for a, b in zip(before, state(network, optimizer), strict=False))
    assert places == [p.data_ptr() for p in network.parameters()]
    after = state(network, optimizer)
    if steps_before:
        assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    # The next step is the one that would have been made without the block.
    learn(*batch)
    other, other_optimizer, learn_other = learner(study)
    for _ in range(steps_before + 1):
        learn_other(*batch)
    for a, b in zip(state(network, optimizer), state(other, other_optimizer), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("model", ["unet", "attention_unet", "attention_unet_open_gates"])
def test_a_network_traces_as_one_graph_and_computes_the_same_through_the_compiler_s_front(model):
    """torch.compile without its code generator: whatever breaks tracing would break compiling on a GPU."""
    study = Study.of_profile("smoke")
    network = models.build(model, study.channels).eval()
    images = torch.rand(2, 1, study.size, study.size)
    traced = torch.compile(network, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(models.forward(traced, images, "fp32"), models.forward(network, images, "fp32"))


def test_an_augmentation_traces_as_one_graph_whatever_is_drawn():
    """Nothing in it asks for a value, which a captured step could not know and for which a GPU would have to wait."""
    study = Study.of_profile("smoke", augmentation="travels")
    augmented = augment.augmentation(study, torch.device("cpu"))
    traced = torch.compile(augmented, backend="aot_eager", fullgraph=True, dynamic=False)
    images, labels, _ = step.blank_batch(models.build("unet", study.channels), study)
    for seed in range(2):
        images = torch.randint(0, 256, images.shape, dtype=torch.uint8)
        draws = augment.draw(study, len(images), torch.Generator().manual_seed(seed))
        torch.testing.assert_close(traced(images, labels, draws), augmented(images, labels, draws))


class Replayed:
    """Stands for a captured function where there is no GPU."""

    def __init__(self, function, example, otherwise):
        self.function = function

    def __call__(self, *batch):
        return self.function(*batch)

    def seconds(self):
        return 1.0


def refusing(*whats):
    """A Captured that fails for the functions at these places in the order of attempts."""
    attempts = iter(range(10))

    def capture(function, example, otherwise):
        if next(attempts) in whats:
            function(*example)  # as far as the warm-up it came
            raise RuntimeError("operation not permitted when stream is capturing\nand more that nobody needs")
        return Replayed(function, example, otherwise)

    return capture


def test_a_capture_that_fails_costs_a_line_and_not_the_training(small, tmp_path, monkeypatch, capsys):
    study = dataclasses.replace(small[0], deterministic=torch.cuda.is_available())  # plain is captured there
    plain = loop.train(*small[1:], study, "unet", 0, tmp_path / "plain")
    capsys.readouterr()
    monkeypatch.setattr(step, "_worth_capturing", lambda *_: True)
    monkeypatch.setattr(graph, "Captured", refusing(0, 1))
    run = loop.train(*small[1:], study, "unet", 0, tmp_path / "refused")
    said = capsys.readouterr().out
    assert said.count("operation not permitted when stream is capturing); training goes on without.\n") == 2
    assert "Capturing a training step failed" in said and "Capturing the validation failed" in said
    weights = load_file(plain.weights)
    assert all(torch.equal(weight, weights[name]) for name, weight in load_file(run.weights).items())


@pytest.mark.parametrize(("failing", "compiled"), [((), True), ((1,), False), ((1, 2), False)])
def test_compiled_and_captured_then_captured_then_plain(small, monkeypatch, capsys, failing, compiled):
    study = small[0]
    network, optimizer, _ = learner(study)
    monkeypatch.setattr(graph, "Captured", refusing(*failing))
    monkeypatch.setattr(graph, "_compiled", lambda step_of, network: lambda *batch: "compiled")
    eager = lambda *batch: "plain"  # noqa: E731
    chosen = graph.captured_step(lambda _: eager, network, optimizer, (), calls=10**6, may_compile=True)
    assert chosen() == ("compiled" if compiled else "plain")
    assert isinstance(chosen, Replayed) == (len(failing) < 2) and (chosen is eager) == (len(failing) == 2)
    assert ("a compiled training step failed" in capsys.readouterr().out) == bool(failing)


def test_memory_that_is_full_during_a_capture_is_not_passed_over(monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(graph, "Captured", full)
    with pytest.raises(torch.OutOfMemoryError):
        graph.captured(print, (), print, "nothing")


def test_what_is_captured(small):
    on_gpu = SimpleNamespace(parameters=lambda: iter([SimpleNamespace(is_cuda=True)]))
    study = small[0]
    assert step._worth_capturing(on_gpu, study, study.batch_size)
    assert not step._worth_capturing(on_gpu, study, study.batch_size - 1)
    assert not step._worth_capturing(on_gpu, dataclasses.replace(study, capture="never"), study.batch_size)
    assert not step._worth_capturing(models.build("unet", study.channels), study, study.batch_size)


def test_a_failed_capture_leaves_stream_and_allocator_as_they_were(monkeypatch):
    """torch.cuda.graph gives neither back when the end of a capture fails."""
    usual, current = MagicMock(name="usual"), []
    for name in ("Stream", "stream", "CUDAGraph", "graph_pool_handle", "current_device"):
        monkeypatch.setattr(torch.cuda, name, MagicMock())
    ended = MagicMock(side_effect=RuntimeError("no capture is going on"))  # as newer versions of torch say
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", ended, raising=False)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: usual)
    monkeypatch.setattr(torch.cuda, "set_stream", current.append)
    monkeypatch.setattr(torch.cuda, "graph", MagicMock(side_effect=RuntimeError("capture_end")))
    with pytest.raises(RuntimeError, match="capture_end"):
        graph.Captured(lambda x: x, (torch.zeros(1),), print)
    assert current == [usual] and ended.call_count == 1


@needs_gpu
@pytest.mark.parametrize(
    ("model", "kind"),
    [("unet", "small"), ("unet_resnet34", "small"), ("attention_unet", "small"), ("unet", "travelling")],
)
def test_a_captured_run_learns_what_the_plain_step_learns(request, tmp_path, monkeypatch, model, kind):
    small = request.getfixturevalue(kind)
    study = dataclasses.replace(small[0], deterministic=True, batch_size=7, epochs=3)
    captured = loop.train(*small[1:], study, model, 0, tmp_path / "captured")
    again = loop.train(*small[1:], study, model, 0, tmp_path / "again")
    monkeypatch.setattr(graph, "captured_step", lambda step_of, network, *_, **__: step_of(network))
    plain = loop.train(*small[1:], study, model, 0, tmp_path / "plain")
    weights = [load_file(run.weights) for run in (captured, again, plain)]
    for key, weight in weights[0].items():
        assert torch.equal(weight, weights[1][key]), key
        torch.testing.assert_close(weight, weights[2][key], rtol=1e-3, atol=1e-4)


@needs_gpu
def test_a_compiled_step_learns_what_the_plain_step_learns(small, tmp_path, monkeypatch, capsys):
    study = dataclasses.replace(small[0], epochs=3)
    plain = loop.train(*small[1:], study, "unet", 0, tmp_path / "plain")
    monkeypatch.setattr(graph, "COMPILATION_SECONDS", 0)
    compiled = loop.train(*small[1:], study, "unet", 0, tmp_path / "compiled")
    assert "failed" not in capsys.readouterr().out
    assert abs(plain.history["train_loss"] - compiled.history["train_loss"]).max() < 0.01


@needs_gpu
@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_a_captured_step_does_not_wait_for_the_gpu(small, augmentation):
    study = dataclasses.replace(small[0], augmentation=augmentation)
    network, optimizer, _ = learner(study, device="cuda")
    learn = step.training_step(network, optimizer, study, slices=100, steps=1)
    batch = step.blank_batch(network, study)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            learn(*batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
