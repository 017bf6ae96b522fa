"""What a layer keeps for its backward pass: `keep="compressed"`, and the rules for saved tensors."""

import pytest
from cases import sparse_ints

torch = pytest.importorskip("torch")
sct = pytest.importorskip("sparseconv.torch")
from torch.utils.checkpoint import checkpoint  # noqa: E402

from sparseconv.torch import saved  # noqa: E402

functional = torch.nn.functional
MODIFIED = "modified by an inplace operation"


def ints(*shape, sparsity=0.7, seed=1):
    return torch.from_numpy(sparse_ints(shape, sparsity, seed))


@pytest.fixture
def packed(monkeypatch):
    """(bytes packed, bytes before) of every tensor that is kept."""
    sizes = []

    def recorded(tensor, *, pack=saved._pack, **words):
        result = pack(tensor, **words)
        sizes.append((result[0].nbytes, tensor.nbytes))
        return result

    def recorded_mask(tensor, *, pack=saved._pack_mask):
        result = pack(tensor)
        sizes.append((result[0].nbytes, tensor.nbytes))
        return result

    monkeypatch.setattr(saved, "_pack", recorded)
    monkeypatch.setattr(saved, "_pack_mask", recorded_mask)
    return sizes


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("activation", [None, "relu"])
def test_compressed(activation, memory_format, packed):
    leaves = []
    for keep in ("dense", "compressed"):
        x = ints(4, 32, 9, 8).to(memory_format=memory_format).requires_grad_()
        weight = ints(17, 32, 3, 3, seed=2).requires_grad_()
        y = sct.conv2d(x, weight, padding=1, activation=activation, keep=keep)
        y.backward(ints(*y.shape))
        leaves.append((x.grad, weight.grad))
    for one, other in zip(*leaves, strict=True):
        assert torch.equal(one, other) and one.stride() == other.stride()
    assert len(packed) == (2 if activation else 1)
    assert packed[0][0] < 0.36 * packed[0][1]
    assert all(size * 32 == before for size, before in packed[1:])


def test_nothing_to_keep(packed):
    """Without a gradient of the weight the input is not kept; without gradients nothing is."""
    x, weight = ints(2, 16, 5, 6).requires_grad_(), ints(17, 16, 3, 3, seed=2)
    y = sct.conv2d(x, weight, keep="compressed")
    assert packed == [] and y.grad_fn._raw_saved_tensors[0] is not None
    with torch.no_grad():
        assert not sct.conv2d(x, weight, keep="compressed").requires_grad
    assert packed == []


@pytest.mark.parametrize("keep", ["dense", "compressed"])
def test_freed_after_backward(keep):
    x, weight = ints(2, 16, 5, 6).requires_grad_(), ints(17, 16, 3, 3, seed=2).requires_grad_()
    y = sct.conv2d(x, weight, activation="relu", keep=keep).sum()
    y.backward()
    with pytest.raises(RuntimeError, match="a second time"):
        y.backward()


@pytest.mark.parametrize("changed", ["input", "weight", "result"])
@pytest.mark.parametrize("keep", ["dense", "compressed"])
def test_changed_in_place(keep, changed):
    """What is kept as it is must not change; what is packed is a copy, whose gradients are right."""

    def run(functions, change, **words):
        x, weight = (ints(2, 16, 5, 6) + 1).requires_grad_(), ints(17, 16, 3, 3, seed=2).requires_grad_()
        tensors = {"input": x * 1, "weight": weight * 1}
        tensors["result"] = functions(*tensors.values(), **words)
        loss = (tensors["result"] * 3).sum()
        if change:
            with torch.no_grad():
                tensors[changed].add_(1)
        return torch.autograd.grad(loss, (x, weight))

    expected = run(lambda *args, **_: functional.conv2d(*args).relu(), False)
    if keep == "dense" or changed == "weight":
        with pytest.raises(RuntimeError, match=MODIFIED):
            run(sct.conv2d, True, activation="relu", keep=keep)
    else:
        for one, other in zip(run(sct.conv2d, True, activation="relu", keep=keep), expected, strict=True):
            assert torch.equal(one, other)


def test_others_hooks_have_the_say(packed):
    """Checkpoints drop what they recompute; save_on_cpu and other hooks see all that is saved."""
    x, weight = ints(2, 16, 5, 6).requires_grad_(), ints(17, 16, 3, 3, seed=2).requires_grad_()

    def layer(x):
        return sct.conv2d(x, weight, activation="relu", keep="compressed")

    expected = torch.autograd.grad(layer(x).sum(), (x, weight))
    count = len(packed)
    assert count == 2
    seen = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: seen.append(tensor) or tensor, lambda tensor: tensor):
        y = layer(x)
    assert len(seen) == 3 and len(packed) == count
    for result in (y, checkpoint(layer, x, use_reentrant=False), checkpoint(layer, x, use_reentrant=True)):
        weight.grad = x.grad = None
        result.sum().backward()
        assert torch.equal(x.grad, expected[0]) and torch.equal(weight.grad, expected[1])
    with torch.autograd.graph.save_on_cpu():
        for one, other in zip(torch.autograd.grad(layer(x).sum(), (x, weight)), expected, strict=True):
            assert torch.equal(one, other)


def test_empty_and_strange_memory(packed):
    weight = ints(17, 16, 3, 3, seed=2).requires_grad_()
    for x in (ints(0, 16, 5, 6), ints(1, 16, 5, 6).expand(3, 16, 5, 6), ints(2, 16, 5, 12)[..., ::2]):
        grads = []
        for keep in ("dense", "compressed"):
            y = sct.conv2d(x, weight, activation="relu", keep=keep)
            grads.append(torch.autograd.grad(y, weight, ints(*y.shape)))
        assert torch.equal(*[one for (one,) in grads])
