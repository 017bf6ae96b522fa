"""Where results and gradients of `sparseconv.torch` lie in memory: as with torch's own functions, real and fake."""

import itertools

import pytest
from cases import sparse_ints

torch = pytest.importorskip("torch")
sct = pytest.importorskip("sparseconv.torch")
from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402

functional = torch.nn.functional


def ints(*shape, seed=1):
    return torch.from_numpy(sparse_ints(shape, 0.4, seed))


def permuted(tensor):
    """Channels last by permutation: strides of one-element dimensions are others than those of .to(memory_format)."""
    return tensor.movedim(1, -1).contiguous().movedim(-1, 1)


FORMATS = {
    "contiguous": lambda tensor: tensor,
    "channels_last": lambda tensor: tensor.to(
        memory_format=torch.channels_last if tensor.dim() == 4 else torch.channels_last_3d
    ),
    "permuted": permuted,
    "transposed": lambda tensor: tensor.transpose(0, -1).contiguous().transpose(0, -1),
    "sliced": lambda tensor: torch.cat([tensor, tensor], -1)[..., : tensor.shape[-1]],
    "sliced channels": lambda tensor: torch.cat([tensor, tensor], 1)[:, : tensor.shape[1]],
    "sliced channels_last": lambda tensor: permuted(torch.cat([tensor, tensor], 1))[:, : tensor.shape[1]],
    "expanded": lambda tensor: tensor[:1].expand_as(tensor),
}
# batch, channels, channels of the result, size, kernel: one channel, one pixel, one image, one tap
SIZES = (
    (2, 3, 4, 5, 3),
    (1, 3, 4, 5, 1),
    (2, 1, 4, 5, 3),
    (2, 3, 1, 5, 3),
    (2, 3, 4, 1, 1),
    (1, 3, 1, 1, 1),
    (1, 1, 1, 3, 3),
)


def strides(function, x, weight):
    """Strides of result and gradient of the input."""
    x = x.detach().requires_grad_()
    y = function(x, weight)
    (grad,) = torch.autograd.grad(y.sum(), x)
    return y.stride(), grad.stride()


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_strides(size, transposed):
    batch, channels, filters, length, taps = size
    x = ints(batch, channels, length, length)
    weight = ints(*((channels, filters) if transposed else (filters, channels)), taps, taps)
    name = "conv_transpose2d" if transposed else "conv2d"
    ours, theirs = getattr(sct, name), getattr(functional, name)
    for one, other in itertools.product(FORMATS, FORMATS):
        operands = FORMATS[one](x), FORMATS[other](weight)
        expected = strides(theirs, *operands)
        assert strides(ours, *operands) == expected, (one, other)
        with FakeTensorMode() as mode:
            assert strides(ours, *map(mode.from_tensor, operands)) == expected, (one, other)


@pytest.mark.parametrize("transposed", [False, True])
def test_strides_in_three_dimensions(transposed):
    """Small ones, of single images and of 1 x 1 x 1 kernels, torch does elsewhere than in oneDNN: contiguous."""
    x, weight = ints(2, 3, 4, 5, 6), ints(3, 3, 3, 3, 3)
    name = "conv_transpose3d" if transposed else "conv3d"
    for one, other in itertools.product(FORMATS, FORMATS):
        operands = FORMATS[one](x), FORMATS[other](weight)
        expected = strides(getattr(functional, name), *operands)
        assert strides(getattr(sct, name), *operands) == expected, (one, other)
        with FakeTensorMode() as mode:
            assert strides(getattr(sct, name), *map(mode.from_tensor, operands)) == expected, (one, other)


@pytest.mark.parametrize("name", ["conv1d", "conv_transpose1d", "linear"])
def test_contiguous_results(name):
    """One dimension has no channels_last."""
    x, weight = ints(2, 3, 5), ints(3, 3, 3)
    if name == "linear":
        x, weight = ints(2, 5, 3), ints(4, 3)
    for one in ("contiguous", "permuted", "transposed", "sliced", "expanded"):
        operands = FORMATS[one](x), weight
        expected = strides(getattr(functional, name), *operands)
        assert strides(getattr(sct, name), *operands) == expected, one
        with FakeTensorMode() as mode:
            assert strides(getattr(sct, name), *map(mode.from_tensor, operands)) == expected, one


@pytest.mark.parametrize("one", FORMATS)
def test_gradients_of_weights_lie_as_weights_do(one):
    """Dense ones; the optimiser's arithmetic would otherwise mix strides. Others get contiguous gradients."""
    x, weight = ints(2, 3, 5, 6), FORMATS[one](ints(4, 3, 3, 3)).detach().requires_grad_()
    (grad,) = torch.autograd.grad(sct.conv2d(x, weight).sum(), weight)
    assert grad.stride() == torch.empty_like(weight).stride() or "sliced" in one or one == "expanded"
    if "sliced" in one or one == "expanded":
        assert grad.is_contiguous()


def test_channels_last_is_used_in_place(monkeypatch):
    """The core gets the memory of the tensors themselves, weights included, and writes into that of the results."""
    from sparseconv.torch import calls

    x = ints(2, 16, 5, 6).to(memory_format=torch.channels_last).requires_grad_()
    weight = ints(17, 16, 3, 3).to(memory_format=torch.channels_last).requires_grad_()
    y = sct.conv2d(x, weight, padding=1)
    grad_output = ints(*y.shape).to(memory_format=torch.channels_last)
    y.backward(grad_output)
    addresses = {tensor.data_ptr() for tensor in (x, weight, grad_output)}
    seen = []

    def recorded(operands):
        seen.extend(array.ctypes.data for array in operands.values())

    class Recorded:
        def __init__(self, operation):
            self.operation = operation

        def run(self, operands, out, *rest):
            recorded(operands)
            return self.operation.run(operands, out, *rest)

    kept = {key: call._replace(operation=Recorded(call.operation)) for key, call in calls._kept.items()}
    monkeypatch.setattr(calls, "_kept", kept)
    sct.conv2d(x, weight, padding=1).backward(grad_output)
    assert len(seen) == 6 and set(seen) == addresses


ODD = {
    "negative bit": lambda: torch._neg_view(ints(2, 4, 5, 6)),
    "imaginary part": lambda: torch.complex(ints(2, 4, 5, 6), ints(2, 4, 5, 6, seed=3)).conj().imag,
    "reversed": lambda: ints(2, 4, 5, 6).flip(3),
    "every other": lambda: ints(4, 4, 10, 18)[::2, :, ::2, ::3],
    "misaligned": lambda: torch.frombuffer(bytearray(b"\0" * 962), dtype=torch.float32, offset=2).view(2, 4, 5, 6) + 1,
}


@pytest.mark.parametrize("kind", ODD)
def test_odd_memory(kind):
    x = ODD[kind]().detach()
    weight = ints(3, 4, 3, 3)
    copies = [one.clone().contiguous().requires_grad_() for one in (x, weight)]
    tensors = [x.requires_grad_(), weight.requires_grad_()]
    y, expected = sct.conv2d(*tensors, padding=1), functional.conv2d(*copies, padding=1)
    assert torch.equal(y, expected)
    y.backward(torch._neg_view(ints(*y.shape)))
    expected.backward(-ints(*y.shape))
    for one, other in zip(tensors, copies, strict=True):
        assert torch.equal(one.grad, other.grad)


def test_misaligned_operands():
    """Elements at addresses that are no multiples of their size are copied, and no call is kept for them."""
    memory = bytearray(4 * 2 * 4 * 5 * 6 + 2)
    x = torch.frombuffer(memory, dtype=torch.float32, offset=2).view(2, 4, 5, 6)
    x.copy_(ints(2, 4, 5, 6))
    weight = ints(3, 4, 3, 3)
    for _ in range(2):
        assert torch.equal(sct.conv2d(x, weight), functional.conv2d(ints(2, 4, 5, 6), weight))
        assert torch.equal(sct.conv2d(x.clone(), weight), functional.conv2d(ints(2, 4, 5, 6), weight))
