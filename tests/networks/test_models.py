import math

import pytest
import torch

from sahlib.networks import models
from sahlib.study import MODELS, Study, StudyError

CHANNELS = (4, 8, 8, 8, 8)


@pytest.fixture(scope="module", params=MODELS)
def network(request):
    return models.build(request.param, CHANNELS)


@pytest.mark.parametrize("size", [64, 96])
def test_every_network_maps_images_to_logits_of_their_size(network, size):
    with torch.no_grad():
        assert network.eval()(torch.rand(2, 1, size, size)).shape == (2, 1, size, size)


@pytest.mark.parametrize("name", ["unet", "attention_unet"])
def test_the_paper_s_two_networks_take_every_multiple_of_16(name):
    with torch.no_grad():
        assert models.build(name, CHANNELS).eval()(torch.rand(1, 1, 48, 80)).shape == (1, 1, 48, 80)


@pytest.mark.parametrize("name", MODELS)
def test_every_network_learns_from_a_last_batch_of_one_at_the_smallest_size(name):
    size = next(size for size in range(16, 129, 16) if _is_allowed(size, name))
    models.build(name, CHANNELS).train()(torch.rand(1, 1, size, size)).sum().backward()


def _is_allowed(size, name):
    try:
        return bool(Study(size=size, models=tuple(dict.fromkeys(("unet", "attention_unet", name)))))
    except StudyError:
        return False


def test_gradients_reach_every_parameter(network):
    network.train()
    network(torch.rand(4, 1, 64, 64)).square().mean().backward()
    without = [name for name, weight in network.named_parameters() if weight.grad is None]
    assert not without


@pytest.mark.parametrize("name", MODELS)
def test_widths_are_used(name):
    wider = tuple(8 * width for width in CHANNELS)
    count = [sum(p.numel() for p in models.build(name, c).parameters()) for c in (CHANNELS, wider)]
    assert count[1] > count[0]


@pytest.mark.parametrize("name", MODELS)
def test_prior_bias_starts_at_the_log_odds_and_changes_nothing_else(name):
    torch.manual_seed(0)
    plain = models.build(name, CHANNELS)
    torch.manual_seed(0)
    biased = models.build(name, CHANNELS, priors=[0.01])
    changed = [key for key, value in plain.state_dict().items() if not torch.equal(value, biased.state_dict()[key])]
    assert len(changed) == 1 and changed[0].endswith("bias")
    assert biased.state_dict()[changed[0]].item() == pytest.approx(math.log(0.01 / 0.99))


@pytest.mark.parametrize("name", MODELS)
def test_a_higher_output_bias_raises_every_logit_by_as_much(name):
    """Proof that the bias found is the output's, and not that of some inner layer."""
    network = models.build(name, CHANNELS).eval()
    image = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        before = network(image)
        models.output_layer(network).bias += 3.0
        torch.testing.assert_close(network(image), before + 3.0, atol=1e-4, rtol=0)


def test_a_free_output_is_monai_s_unet_without_the_norm_and_activation_on_it():
    networks = []
    for name in ("unet", "unet_free_output"):
        torch.manual_seed(0)
        networks.append(models.build(name, CHANNELS).eval())
    plain, free = (network.state_dict() for network in networks)
    assert set(plain) - set(free) == {"model.2.0.adn.A.weight"}  # PReLU's slope; the norm has no weights
    assert all(torch.equal(plain[name], value) for name, value in free.items())
    # MONAI's one cannot call a whole slice background more strongly than another: before the last unit every slice has
    # the same mean and deviation, whatever the decoder found. The free one can.
    sizes = []
    for network, last in zip(networks, ("adn", "conv"), strict=True):
        seen = []
        hook = getattr(network.model[2][0], last).register_forward_hook(
            lambda m, args, out, seen=seen: seen.append(out)
        )
        with torch.no_grad():
            network(torch.rand(3, 1, 32, 32) * torch.tensor([0.0, 0.1, 1.0]).view(3, 1, 1, 1))
        hook.remove()
        sizes.append(seen[0].std(dim=(1, 2, 3)))
    assert sizes[0][1:].std() < 0.05 * sizes[0][1:].mean() < sizes[1][1:].std()


def test_mistakes_are_named():
    with pytest.raises(StudyError, match="vnet.*unet"):
        models.build("vnet", CHANNELS)
    with pytest.raises(StudyError, match="prior_bias"):
        models.build("unet", CHANNELS, priors=[0.0])
