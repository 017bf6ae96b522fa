"""Masks as parametrizations: which weights a module sees, which gradients its dense weight gets, and what is kept."""

import copy
import io

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn.utils import parametrize  # noqa: E402

import sparseconv.torch as sct  # noqa: E402
from sparseconv import pruning  # noqa: E402

KINDS = {
    "topk": (lambda **words: sct.TopKWeight(0.7, **words), lambda w: pruning.topk_mask(w, 0.7)),
    "structured": (
        lambda **words: sct.TopKWeight(0.7, structured=True, **words),
        lambda w: np.broadcast_to(pruning.channel_mask(w, 0.7), w.shape),
    ),
    "nm": (lambda **words: sct.NMWeight(2, 4, **words), lambda w: pruning.nm_mask(w, 2, 4, 1)),
    "transposable": (
        lambda **words: sct.TransposableNMWeight(4, 8, **words),
        lambda w: pruning.transposable_nm_mask(w, 4, 8, "greedy"),
    ),
}
EACH = pytest.mark.parametrize("kind", KINDS)


def register(module, mask):
    parametrize.register_parametrization(module, "weight", mask)


def layer(kind, **words):
    torch.manual_seed(0)
    conv = nn.Conv2d(16, 32, 3, padding=1)
    make, mask = KINDS[kind]
    register(conv, make(**words))
    return conv, mask


@EACH
def test_the_module_sees_the_masked_weight_and_the_dense_one_learns(kind):
    conv, mask = layer(kind)
    dense = conv.parametrizations.weight.original
    expected = dense.detach().numpy() * mask(dense.detach().numpy())
    np.testing.assert_array_equal(conv.weight.detach(), expected)
    assert 0.2 < np.mean(expected != 0) < 0.6
    x = torch.randn(2, 16, 6, 6)
    conv(x).square().sum().backward()
    plain = nn.Conv2d(16, 32, 3, padding=1)
    plain.weight.data.copy_(torch.from_numpy(expected))
    plain.bias.data.copy_(conv.bias.data)
    plain(x).square().sum().backward()
    torch.testing.assert_close(dense.grad, plain.weight.grad)
    assert float((dense.grad != 0).float().mean()) > 0.9


@EACH
def test_masks_follow_the_weights_every_period(kind):
    conv, _ = layer(kind, period=2)
    dense = conv.parametrizations.weight.original
    optimizer = torch.optim.Adam(conv.parameters(), 0.1)
    masks = []
    for _ in range(4):
        optimizer.zero_grad()
        conv(torch.randn(2, 16, 6, 6)).square().sum().backward()
        masks.append(conv.parametrizations.weight[0].mask.clone())
        optimizer.step()
    assert torch.equal(masks[1], masks[0]) or torch.equal(masks[2], masks[1])
    assert not torch.equal(masks[3], masks[0])
    conv.eval()
    before = conv.parametrizations.weight[0].mask.clone()
    dense.data.neg_().add_(torch.randn_like(dense))
    conv(torch.randn(1, 16, 6, 6))
    assert torch.equal(conv.parametrizations.weight[0].mask, before)


@EACH
def test_what_is_saved_and_copied(kind):
    conv, _ = layer(kind)
    other, _ = layer(kind)
    other.parametrizations.weight.original.data.normal_()
    stream = io.BytesIO()
    torch.save(conv.state_dict(), stream)
    stream.seek(0)
    other.load_state_dict(torch.load(stream))
    assert torch.equal(other.eval().weight, conv.eval().weight)
    assert torch.equal(copy.deepcopy(conv).weight, conv.weight)
    masked = conv.weight.detach().clone()
    parametrize.remove_parametrizations(conv, "weight")
    assert type(conv) is nn.Conv2d and torch.equal(conv.weight, masked)


@EACH
def test_an_assigned_weight_is_masked_anew(kind):
    conv, mask = layer(kind)
    weight = torch.randn(32, 16, 3, 3)
    conv.weight = weight
    np.testing.assert_array_equal(conv.weight.detach(), weight.numpy() * mask(weight.numpy()))


def test_converted_modules_skip_the_zeros():
    conv, _ = layer("topk")
    x = torch.randn(2, 16, 6, 6).to(memory_format=torch.channels_last)
    expected = conv(x)
    sct.convert_(conv)
    torch.testing.assert_close(conv(x), expected, rtol=1e-4, atol=1e-4)
    conv(x).sum().backward()
    assert conv.parametrizations.weight.original.grad is not None


@pytest.mark.parametrize(
    "make, error, words",
    [
        (lambda: sct.TopKWeight(1.0), ValueError, "sparsity: got 1"),
        (lambda: sct.TopKWeight(0.5, period=0), ValueError, "period: got 0"),
        (lambda: register(nn.Linear(6, 6), sct.NMWeight(2, 4)), ValueError, "m: got 4"),
        (lambda: register(nn.Linear(6, 6), sct.NMWeight(5, 4)), ValueError, "n: got 5"),
    ],
)
def test_errors(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_sparsifiers_of_torch_ao_run_converted():
    """torch.ao.pruning masks weights by a parametrization of its own."""
    sparsifier_class = pytest.importorskip("torch.ao.pruning").WeightNormSparsifier
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32))
    sparsifier = sparsifier_class(sparsity_level=0.5, sparse_block_shape=(1, 4), zeros_per_block=4)
    sparsifier.prepare(net, [{"tensor_fqn": "0.weight"}, {"tensor_fqn": "2.weight"}])
    sparsifier.step()
    x = torch.randn(8, 64)
    expected = net(x)
    sct.convert_(net)
    torch.testing.assert_close(net(x), expected, rtol=1e-4, atol=1e-5)
    net(x).sum().backward()
    sparsifier.squash_mask()
    torch.testing.assert_close(net(x), expected, rtol=1e-4, atol=1e-5)
    assert float((net[0].weight == 0).float().mean()) > 0.4
