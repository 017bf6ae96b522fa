"""Gradients behind a ReLU are left out just where nobody can see them."""

import pytest
from cases import sparse_ints

torch = pytest.importorskip("torch")
sct = pytest.importorskip("sparseconv.torch")
from sparseconv.torch import observe, relu_inputs  # noqa: E402

functional = torch.nn.functional


def ints(*shape, sparsity=0.4, seed=1):
    return torch.from_numpy(sparse_ints(shape, sparsity, seed))


WORDS = []  # what backward_data was told to skip


@pytest.fixture(autouse=True)
def masks(monkeypatch):
    """The masks that backward_data gets, of tensors of any size."""
    monkeypatch.setattr(relu_inputs, "LEAST", 0)
    seen = []
    WORDS.clear()
    for family in (sct.ops.convolution, sct.ops.linear):
        operator = family.backward_data

        def recorded(grad_output, weight, mask, *rest, overload=operator.overload):
            seen.append(mask is not None)
            WORDS.append(rest[-3])
            return overload(grad_output, weight, mask, *rest)

        monkeypatch.setattr(operator, "overload", recorded)
    return seen


def layers(functions, z, weight, producer, **words):
    """What `producer` makes of z, and a layer of it."""
    x = producer(z)
    return x, functions.conv2d(x, weight, padding=1, **words)


PRODUCERS = {
    "relu": lambda z: torch.relu(z * 1),
    "in place": lambda z: torch.relu_(z * 1),
    "module": lambda z: torch.nn.ReLU(inplace=True)(z * 1),
    "method": lambda z: (z * 1).relu(),
    "fused": lambda z: sct.conv2d(z, torch.eye(16)[:, :, None, None], activation="relu"),
    "residual": lambda z: torch.relu(z + z.flip(1)),
}
OTHERS = {
    "none": lambda z: z * 1,
    "leaky": lambda z: functional.leaky_relu(z * 1),
    "dropout": lambda z: functional.dropout(torch.relu(z * 1), 0.5),
    "changed": lambda z: torch.relu(z * 1).mul(2),
    "view": lambda z: torch.relu(z * 1).view(z.shape),
    "clamp": lambda z: (z * 1).clamp(min=0),
    "leaf": lambda z: torch.relu(z * 1).detach().requires_grad_(),
    "fused without": lambda z: sct.conv2d(z, torch.eye(16)[:, :, None, None]),
}


@pytest.mark.parametrize("name", PRODUCERS)
def test_found(name, masks):
    z, weight = ints(2, 16, 5, 6).requires_grad_(), ints(17, 16, 3, 3, seed=2).requires_grad_()
    _, y = layers(sct, z, weight, PRODUCERS[name])
    y.backward(ints(*y.shape))
    assert masks[0] is True
    other, twin = z.detach().clone().requires_grad_(), weight.detach().clone().requires_grad_()
    x = torch.relu(other + other.flip(1)) if name == "residual" else torch.relu(other)
    functional.conv2d(x, twin, padding=1).backward(ints(*y.shape))
    assert torch.equal(z.grad, other.grad) and torch.equal(weight.grad, twin.grad)


@pytest.mark.parametrize("name", OTHERS)
def test_not_assumed(name, masks):
    z, weight = ints(2, 16, 5, 6).requires_grad_(), ints(17, 16, 3, 3, seed=2)
    _, y = layers(sct, z, weight, OTHERS[name])
    y.sum().backward()
    assert not any(masks)


def test_other_users_of_the_same_result(masks):
    """Their gradients come together before the mask."""
    z, weight = ints(2, 16, 5, 6).requires_grad_(), ints(17, 16, 3, 3, seed=2)
    x, y = layers(sct, z, weight, PRODUCERS["relu"])
    (y.sum() + (3 * x).sum() + sct.linear(x.mean((2, 3)), ints(4, 16)).sum()).backward()
    other = z.detach().clone().requires_grad_()
    x, y = layers(functional, other, weight, PRODUCERS["relu"])
    (y.sum() + (3 * x).sum() + functional.linear(x.mean((2, 3)), ints(4, 16)).sum()).backward()
    assert masks.count(True) == 1
    torch.testing.assert_close(z.grad, other.grad)


def full_gradient(z, weight):
    z = z.detach().clone().requires_grad_()
    x, y = layers(functional, z, weight, torch.relu)
    x.retain_grad()
    y.sum().backward()
    return x.grad, z.grad


LOOKERS = {
    "tensor hook": lambda x, found: x.register_hook(lambda grad: found.append(grad.clone())),
    "retain_grad": lambda x, found: x.retain_grad(),
    "prehook of the node": lambda x, found: x.grad_fn.register_prehook(lambda grads: found.append(grads[0].clone())),
    "hook of the node": lambda x, found: x.grad_fn.register_hook(lambda _, grads: found.append(grads[0].clone())),
    "multi grad hook": lambda x, found: torch.autograd.graph.register_multi_grad_hook(
        (x,), lambda grads: found.append(grads[0].clone())
    ),
}


@pytest.mark.parametrize("keep", ["dense", "compressed"])
@pytest.mark.parametrize("producer", ["relu", "in place", "fused"])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("name", LOOKERS)
def test_seen_by_hooks(name, when, producer, keep, masks):
    """Whenever the hook came: before the layer's forward pass or after it; and when it is gone again."""
    z, weight = ints(2, 16, 5, 6).requires_grad_(), ints(17, 16, 3, 3, seed=2)
    expected, of_z = full_gradient(z, weight)
    found, x = [], PRODUCERS[producer](z)
    if when == "before":
        handle = LOOKERS[name](x, found)
        y = sct.conv2d(x, weight, padding=1, keep=keep)
    else:
        y = sct.conv2d(x, weight, padding=1, keep=keep)
        handle = LOOKERS[name](x, found)
    y.sum().backward(retain_graph=True)
    assert masks[0] is False
    assert torch.equal(x.grad if name == "retain_grad" else found[0], expected)
    assert torch.equal(z.grad, of_z)
    if handle is not None:
        handle.remove()
        y.sum().backward()
        assert masks[-2 if producer == "fused" else -1] is True
        assert torch.equal(z.grad, 2 * of_z)


def test_seen_by_hooks_of_the_layer(masks):
    """Which get what the layer has computed."""
    z, weight = ints(2, 16, 5, 6).requires_grad_(), ints(17, 16, 3, 3, seed=2)
    expected, of_z = full_gradient(z, weight)
    found, y = [], sct.conv2d(torch.relu(z), weight, padding=1)
    handle = y.grad_fn.register_hook(lambda grads, _: found.append(grads[0].clone()))
    y.sum().backward(retain_graph=True)
    handle.remove()
    y.sum().backward()
    assert masks == [False, True]
    assert torch.equal(found[0], expected)
    assert torch.equal(z.grad, 2 * of_z)


def test_a_dropped_tensor_keeps_its_hooks(masks):
    z, weight, found = ints(2, 16, 5, 6).requires_grad_(), ints(17, 16, 3, 3, seed=2), []
    x, y = layers(sct, z, weight, torch.relu, keep="compressed")
    x.register_hook(lambda grad: found.append(grad.clone()))
    del x
    y.sum().backward()
    assert not any(masks) and torch.equal(found[0], full_gradient(z, weight)[0])


@pytest.mark.parametrize("create_graph", [False, True])
def test_asked_for(create_graph, masks):
    """torch.autograd.grad may ask for the gradient of the ReLU's result itself."""
    z, weight = ints(2, 16, 5, 6).requires_grad_(), ints(17, 16, 3, 3, seed=2).requires_grad_()
    expected, of_z = full_gradient(z, weight)
    x, y = layers(sct, z, weight, torch.relu)
    (one,) = torch.autograd.grad(y.sum(), x, retain_graph=True, create_graph=create_graph)
    both = torch.autograd.grad(y.sum(), (z, x), retain_graph=True, create_graph=create_graph)
    edge = torch.autograd.graph.get_gradient_edge(x)
    (at_edge,) = torch.autograd.grad(y.sum(), edge, retain_graph=True)
    assert torch.equal(one, expected) and torch.equal(both[1], expected) and torch.equal(both[0], of_z)
    assert torch.equal(at_edge, expected)
    assert not any(masks)
    y.sum().backward(retain_graph=True)
    assert masks[-1]
    y.sum().backward(inputs=[x])
    assert torch.equal(x.grad, expected) and not masks[-1]


def test_modules_hooks(masks):
    """They put a node between the ReLU and its reader."""
    z, weight, found = ints(2, 16, 5, 6).requires_grad_(), ints(17, 16, 3, 3, seed=2), []
    module = torch.nn.ReLU()
    module.register_full_backward_hook(lambda module, to_input, of_output: found.append(of_output[0].clone()))
    _, y = layers(sct, z, weight, module)
    y.sum().backward()
    assert torch.equal(found[0], full_gradient(z, weight)[0]) and not any(masks)


def test_words(masks):
    z, weight = ints(2, 16, 5, 6).requires_grad_(), ints(17, 16, 3, 3, seed=2)
    for word, found in ((True, True), (False, False), (None, True)):
        _, y = layers(sct, z, weight, torch.relu, input_is_relu=word)
        y.sum().backward()
        assert masks[-1] is found
    x, y = layers(sct, z, weight, torch.relu, input_is_relu=True)
    x.retain_grad()
    y.sum().backward()
    assert masks[-1] is True
    assert not x.grad[x.detach() == 0].any()
    layers(sct, z, weight, torch.relu, skip="none")[1].sum().backward()
    assert masks[-1] is False
    flat = torch.relu(z.flatten(1))
    sct.linear(flat, ints(3, 480)).sum().backward()
    assert masks[-1] is True


def test_checkpoint(masks):
    """Recomputed layers find the ReLU that was recomputed."""
    from torch.utils.checkpoint import checkpoint

    z, weight = ints(2, 16, 5, 6).requires_grad_(), ints(17, 16, 3, 3, seed=2).requires_grad_()
    _, of_z = full_gradient(z, weight.detach())
    for reentrant in (False, True):
        z.grad = None
        y = checkpoint(lambda z: layers(sct, z, weight, torch.relu)[1], z, use_reentrant=reentrant)
        y.sum().backward()
        assert torch.equal(z.grad, of_z)


def test_small_tensors_are_not_watched(monkeypatch, masks):
    """A watch costs 5 us."""
    monkeypatch.setattr(relu_inputs, "LEAST", 1000)
    for size, found in ((5, False), (8, True)):
        _, y = layers(sct, ints(1, 16, size, size).requires_grad_(), ints(17, 16, 3, 3), torch.relu)
        y.sum().backward()
        assert masks[-1] is found


@pytest.mark.parametrize("of_gradient, of_input", [(0.95, 0.5), (0.0, 0.95)])
def test_the_mask_is_a_hint(of_gradient, of_input, masks):
    """It is left out where zeros of the gradient are more; elsewhere nothing but what it needs is computed."""
    x, grad_output = ints(4, 64, 14, 14, sparsity=of_input), ints(4, 64, 14, 14, sparsity=of_gradient, seed=3)
    weight, size, rest = ints(64, 64, 3, 3, seed=2), (4, 64, 14, 14), ([1, 1], [1, 1], [1, 1], False, [0, 0], 1)
    data = torch.ops.sparseconv.convolution_backward_data
    full = functional.conv_transpose2d(grad_output, weight, padding=1)
    exact = data(grad_output, weight, x, size, False, *rest, "auto", 0.0, None)
    hinted = data(grad_output, weight, x, size, False, *rest, "hint", 0.0, None)
    masked = full * (x != 0)
    assert (masked != 0).sum() > 0.9 * (x != 0).sum() and torch.equal(exact, masked)
    assert torch.equal(hinted, full if of_gradient else masked) and not torch.equal(full, masked)
    with pytest.raises(ValueError, match=r"output_mask: got None, expected a mask with skip='hint'"):
        data(grad_output, weight, None, size, False, *rest, "hint", 0.0, None)


@pytest.mark.parametrize("of_gradient", [0.95, 0.0])
def test_only_a_relu_takes_a_hint(of_gradient, masks):
    """With input_is_relu=True there are zeros where the input has them, whatever pays."""
    z, weight = ints(4, 64, 14, 14, sparsity=0.1).requires_grad_(), ints(64, 64, 3, 3, seed=2)
    grad_output = ints(4, 64, 14, 14, sparsity=of_gradient, seed=3)
    for word, told in ((None, "hint"), (True, "auto")):
        x, y = layers(sct, z, weight, torch.relu, input_is_relu=word)
        if word:
            x.retain_grad()
        z.grad = None
        y.backward(grad_output)
        assert masks[-1] is True and WORDS[-1] == told
        assert torch.equal(z.grad, functional.conv_transpose2d(grad_output, weight, padding=1) * (x > 0))
    assert not x.grad[x.detach() == 0].any() and x.grad.any()
    layers(sct, z, weight, torch.relu, skip="weight")[1].sum().backward()
    assert masks[-1] is True and WORDS[-1] == "weight"


def test_a_hint_has_derivatives(masks):
    """What the mask does not need is no result, so nothing is to be differentiated there."""
    x, weight = ints(2, 16, 5, 6), ints(16, 16, 3, 3, seed=2)
    rest = (list(x.shape), False, [1, 1], [1, 1], [1, 1], False, [0, 0], 1)
    gradients = []
    for skip in ("hint", "auto"):
        grad_output, leaf = ints(*x.shape, seed=3).requires_grad_(), weight.clone().requires_grad_()
        result = torch.ops.sparseconv.convolution_backward_data(grad_output, leaf, x, *rest, skip, 0.0, None)
        result.backward(ints(*x.shape, seed=4))
        gradients.append((grad_output.grad, leaf.grad))
    for one, other in zip(*gradients, strict=True):
        assert torch.equal(one, other) and one.any()


@pytest.mark.parametrize(
    "told, batched, masked, words",
    [
        (None, True, True, "hint"), (True, True, True, "auto"), (False, True, False, "auto"),
        (None, False, False, "auto"), (True, False, True, "auto"),
    ],
)  # fmt: skip
def test_convert_times_what_the_model_will_run(told, batched, masked, words, masks, monkeypatch):
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 16, 3))
    config = sct.Config(seconds=0.0, whole_model=False, input_is_relu=told)
    images = ints(2, 3, 8, 8) if batched else ints(3, 8, 8)
    monkeypatch.setattr(observe, "fastest_of_pairs", lambda theirs, ours, seconds: (theirs(), ours(), (2.0, 1.0))[2])
    report = sct.convert_(model, images, config=config)
    assert masks == [masked] and WORDS == [words] and report.converted == 2
    model(images).sum().backward()
    assert masks == [masked] * 2 and WORDS == [words] * 2
