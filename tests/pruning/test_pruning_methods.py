"""Training methods prune what their papers say, when they say, and the passes compute with exactly that.

One file, since every method meets the same three hooks, the same network and the same loop.
"""

import copy
import pickle

import numpy as np
import pytest
from small_training import directional_derivative, stripes

import sparseconv as sc
from sparseconv import pruning
from sparseconv.training import methods, network, report, train


def operands(seed=0, dtype=np.float32):
    """x, weight and grad_output of a 3x3 convolution, NHWC: small integers, all magnitudes up to 60 alike."""
    rng = np.random.default_rng(seed)
    shapes = (2, 7, 6, 16), (32, 16, 3, 3), (2, 7, 6, 32)
    return tuple(rng.integers(-60, 61, shape).astype(dtype) for shape in shapes)


def step(method, x, weight, grad_output, layer="conv"):
    """One training step of a convolution: y, grad_x, grad_weight, as a training loop calls the hooks."""
    used = method.before_forward(layer, weight)
    y = sc.conv2d(x, used, padding=1, layout="NHWC")
    kept, options = method.after_forward(layer, x)
    grad_output = method.before_backward(layer, grad_output)
    grad_x = sc.conv2d_backward_data(grad_output, used, x.shape, padding=1, layout="NHWC")
    return y, grad_x, sc.conv2d_backward_weight(kept, grad_output, 3, padding=1, layout="NHWC", **options)


def dense_step(x, weight, saved_x, grad_output):
    """The same in float64: weight and saved_x are what the method should have made of them."""
    x, weight, saved_x, grad_output = (array.astype(np.float64) for array in (x, weight, saved_x, grad_output))
    return (
        sc.conv2d(x, weight, padding=1, layout="NHWC"),
        sc.conv2d_backward_data(grad_output, weight, x.shape, padding=1, layout="NHWC"),
        sc.conv2d_backward_weight(saved_x, grad_output, 3, padding=1, layout="NHWC"),
    )


def check_step(got, expected):
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_array_equal(one, other)
        assert np.mean(one != 0) > 0.9


def largest(array, sparsity):
    """The array without its smallest magnitudes; of the smallest that are kept, all."""
    kept = array.size - round(sparsity * array.size)
    return np.where(np.abs(array) >= np.sort(np.abs(array), axis=None)[-kept], array, 0)


def test_method_changes_nothing():
    x, weight, grad_output = operands()
    method = pruning.Method()
    assert method.before_forward("a", weight) is weight
    kept, options = method.after_forward("a", x)
    assert kept is x
    assert options == {}
    assert method.before_backward("a", grad_output) is grad_output
    check_step(step(method, x, weight, grad_output), dense_step(x, weight, x, grad_output))


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.8, 0.9])
def test_swat(sparsity, compress):
    x, weight, grad_output = operands()
    before = x.copy(), weight.copy(), grad_output.copy()
    method = pruning.SWAT(sparsity, compress=compress)
    pruned, saved = largest(weight, sparsity), largest(x, sparsity)
    assert np.mean(saved == 0) == pytest.approx(sparsity, abs=0.03)  # ties
    check_step(step(method, x, weight, grad_output), dense_step(x, pruned, saved, grad_output))
    for array, original in zip((x, weight, grad_output), before, strict=True):
        np.testing.assert_array_equal(array, original)
    assert isinstance(method.after_forward("conv", x)[0], sc.CompressedArray) == (compress and sparsity > 0)


def test_swat_structured():
    x, weight, grad_output = operands()
    kept = np.zeros((32, 16), bool)
    kept.flat[np.argsort(-np.abs(weight).sum(axis=(2, 3)), axis=None, kind="stable")[:256]] = True
    pruned = weight * kept[:, :, None, None]
    method = pruning.SWAT(0.5, structured=True)
    check_step(step(method, x, weight, grad_output), dense_step(x, pruned, largest(x, 0.5), grad_output))


def test_swat_thresholds_wait_for_their_period():
    x, weight, _ = operands()
    method = pruning.SWAT(0.8, period=3)
    least_x, least_weight = (np.abs(kept[kept != 0]).min() for kept in (largest(x, 0.8), largest(weight, 0.8)))
    for number in range(7):
        scale, since = np.float32(2**number), np.float32(2 ** (number - number % 3))  # now, and when last computed
        _, options = method.after_forward("conv", scale * x)
        assert options["threshold"] == np.nextafter(since * least_x, np.float32(0))
        used = method.before_forward("conv", scale * weight).to_dense()
        np.testing.assert_array_equal(used, np.where(scale * np.abs(weight) >= since * least_weight, scale * weight, 0))


@pytest.mark.parametrize(
    "make",
    [
        lambda: pruning.SWAT(0.8, period=2),
        lambda: pruning.SWAT(0.8, period=2, structured=True),
        lambda: pruning.TransposableNM(2, 4, period=2),
    ],
)
def test_testing_leaves_no_trace(make):
    """Neither between the steps of training nor before the first: that one chooses by its own weights."""
    weights = np.random.default_rng(3).standard_normal((5, 32, 16, 3, 3), np.float32)
    trained, tested = make(), make()
    before = tested.before_forward("conv", weights[4], training=False).to_dense()
    np.testing.assert_array_equal(before, make().before_forward("conv", weights[4]).to_dense())
    for weight in weights[:4]:
        expected = trained.before_forward("conv", weight).to_dense()
        np.testing.assert_array_equal(tested.before_forward("conv", weight).to_dense(), expected)
        for _ in range(3):
            again = tested.before_forward("conv", weight, training=False)
            np.testing.assert_array_equal(again.to_dense(), expected)


def test_swat_by_layer():
    x, weight, _ = operands()
    method = pruning.SWAT({"a": 0.5, "b": 0.9, "first": 0.0}, dense=["last"])
    assert method.before_forward("a", weight).density == pytest.approx(0.5, abs=0.02)
    assert method.before_forward("b", weight).density == pytest.approx(0.1, abs=0.02)
    for name in ("first", "last"):
        assert method.before_forward(name, weight) is weight
        assert method.after_forward(name, x) == (x, {})
    for hook, array in ((method.before_forward, weight), (method.after_forward, x)):
        with pytest.raises(ValueError, match="layer: got 'c', expected one of a, b, first or of those left dense"):
            hook("c", array)


def test_swat_of_a_budget():
    layers = pruning.network("resnet18", "cifar10")
    method = pruning.SWAT(pruning.sparsity_distribution(layers, 0.9))
    rng = np.random.default_rng(1)
    for layer in layers[:3]:
        weight = rng.standard_normal(layer.weight_shape, np.float32)
        used = method.before_forward(layer.name, weight)
        if layer is layers[0]:
            assert used is weight
        else:
            assert used.density == pytest.approx(0.1, abs=0.001)


def test_groups():
    rng = np.random.default_rng(2)
    x, weight = rng.random((2, 6, 6, 32), np.float32), rng.random((32, 16, 3, 3), np.float32)
    for method in (pruning.SWAT(0.5), pruning.TransposableNM(2, 4)):
        used = method.before_forward("conv", weight, groups=2)
        got = sc.conv2d(x, used, padding=1, layout="NHWC", groups=2)
        expected = sc.conv2d(x, used.to_dense(), padding=1, layout="NHWC", groups=2, skip="none")
        np.testing.assert_allclose(got, expected, rtol=1e-5)


@pytest.mark.parametrize(("n", "m"), [(2, 4), (4, 8), (3, 16)])
def test_transposable_nm(n, m):
    x, weight, grad_output = operands()
    mask = pruning.transposable_nm_mask(weight, n, m, "greedy")
    for matrix in (mask.reshape(32, -1), mask.reshape(32, -1).T):
        np.testing.assert_array_equal(matrix.reshape(len(matrix), -1, m).sum(axis=2), n)
    method = pruning.TransposableNM(n, m)
    check_step(step(method, x, weight, grad_output), dense_step(x, mask * weight, x, grad_output))


def test_transposable_nm_searches():
    weight = np.random.default_rng(3).standard_normal((32, 16, 3, 3), np.float32)
    masks = {name: pruning.transposable_nm_mask(weight, 4, 8, name) for name in ("greedy", "exact", "entropy")}
    assert len({mask.tobytes() for mask in masks.values()}) > 1
    for name, mask in masks.items():
        used = pruning.TransposableNM(4, 8, method=name).before_forward("conv", weight)
        np.testing.assert_array_equal(used.to_dense(), mask * weight)


def test_transposable_nm_masks_wait_for_their_period():
    rng = np.random.default_rng(3)
    weights = rng.standard_normal((5, 32, 16, 3, 3), np.float32)
    method = pruning.TransposableNM(2, 4, period=2)
    for number, weight in enumerate(weights):
        chosen_by = weights[number - number % 2]
        mask = pruning.transposable_nm_mask(chosen_by, 2, 4, "greedy")
        np.testing.assert_array_equal(method.before_forward("conv", weight).to_dense(), mask * weight)
    assert method.before_forward("other", weights[0]).density == 0.5


def every_method():
    """New ones, whose second step prunes."""
    return (
        pruning.Method(),
        pruning.SWAT(0.8, period=2),
        pruning.SWAT(0.8, compress=True),
        pruning.SWAT(0.8, structured=True),
        pruning.TransposableNM(2, 4, period=2),
        pruning.StochasticGradientPruning(0.8, window=1, rng=1),
    )


def test_tensors():
    """Hooks take PyTorch's tensors in any memory order, and give back what a call in NumPy does."""
    torch = pytest.importorskip("torch")
    for method, other in zip(every_method(), every_method(), strict=True):
        for seed in range(3):
            x, weight, grad_output = operands(seed)
            expected = step(other, x, weight, grad_output.copy())
            tensor = torch.from_numpy(x).permute(0, 3, 1, 2)
            gradient = torch.from_numpy(grad_output).permute(0, 3, 1, 2)
            assert tensor.is_contiguous(memory_format=torch.channels_last)
            used = method.before_forward("conv", torch.from_numpy(weight).to(memory_format=torch.channels_last))
            y = sc.conv2d(tensor, used, padding=1)
            kept, options = method.after_forward("conv", tensor)
            assert method.before_backward("conv", gradient) is gradient
            grad_x = sc.conv2d_backward_data(gradient, used, tuple(tensor.shape), padding=1)
            grad_weight = sc.conv2d_backward_weight(kept, gradient, 3, padding=1, **options)
            for one, wanted in zip((y, grad_x), expected, strict=False):
                np.testing.assert_array_equal(one.transpose(0, 2, 3, 1), wanted, err_msg=repr(method))
            np.testing.assert_array_equal(grad_weight, expected[2], err_msg=repr(method))


def test_swat_compresses_what_the_threshold_leaves():
    """In the order of memory; a NaN that comes between two refreshes is above every threshold, as it is for kernels."""
    x = operands()[0].transpose(0, 3, 1, 2)
    method = pruning.SWAT(0.8, compress=True, period=2)
    method.after_forward("conv", x)
    x[0, 1, 2, 3] = np.nan
    kept, options = method.after_forward("conv", x)
    assert options == {}
    assert kept.axes == (0, 2, 3, 1)
    dense = kept.to_dense()
    assert np.isnan(dense[0, 1, 2, 3])
    assert np.count_nonzero(np.isnan(dense)) == 1
    assert kept.density == pytest.approx(0.2, abs=0.03)


@pytest.mark.parametrize("again", [copy.deepcopy, lambda method: pickle.loads(pickle.dumps(method))])
def test_copies_go_on_where_they_were_made(again):
    for method in every_method():
        for seed in range(3):
            step(method, *operands(seed))
        other = again(method)
        assert repr(other) == repr(method)
        for seed in range(3, 6):
            for one, same in zip(step(method, *operands(seed)), step(other, *operands(seed)), strict=True):
                np.testing.assert_array_equal(one, same, err_msg=repr(method))


def test_transposable_nm_layers_that_do_not_fit():
    weight = np.ones((10, 24), np.float32)
    with pytest.raises(ValueError, match="m: got 4, expected a divisor of 10"):
        pruning.TransposableNM(2, 4).before_forward("linear", weight)
    assert pruning.TransposableNM(2, 4, dense=["linear"]).before_forward("linear", weight) is weight
    padded = pruning.TransposableNM(2, 4, pad=True).before_forward("linear", weight)
    assert 0 < padded.density <= 0.6


def test_stochastic_gradient_pruning():
    rng = np.random.default_rng(4)
    method = pruning.StochasticGradientPruning(0.8, window=2, rng=5, dense=["dense"])
    again = pruning.StochasticGradientPruning(0.8, window=2, rng=5)
    for number in range(4):
        gradient = rng.standard_normal((4, 9, 8, 16), np.float32)
        for layer in ("a", "b"):
            given = gradient.copy()
            got = method.before_backward(layer, given)
            assert got is given
            np.testing.assert_array_equal(got, again.before_backward(layer, gradient.copy()))
            if number < 2:
                np.testing.assert_array_equal(got, gradient)
                continue
            assert np.mean(got == 0) == pytest.approx(0.451, abs=0.05)  # papers: 0.451 of a normal distribution
            assert np.array_equal(got != 0, (got != 0) & (np.sign(got) == np.sign(gradient)))
        given = gradient.copy()
        assert method.before_backward("dense", given) is given
        np.testing.assert_array_equal(given, gradient)
    x, weight, _ = operands()
    grad_output = rng.standard_normal((2, 7, 6, 32), np.float32)
    for hook, array in ((method.before_forward, weight), (lambda *args: method.after_forward(*args)[0], x)):
        assert hook("a", array) is array
    assert method.before_backward("c", grad_output) is grad_output


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pruning.SWAT(1.0), r"sparsity: got 1.0, expected at least 0 and less than 1"),
        (lambda: pruning.SWAT({"a": -0.1}), r"sparsity\['a'\]: got -0.1"),
        (lambda: pruning.SWAT(0.5, period=0), "period: got 0, expected"),
        (lambda: pruning.TransposableNM(5, 4), "n: got 5, expected at most m = 4"),
        (lambda: pruning.TransposableNM(2, 64), "m: got 64, expected at most 32"),
        (lambda: pruning.TransposableNM(2, 4, method="best"), "method: got 'best', expected one of 'exact', 'greedy'"),
        (lambda: pruning.TransposableNM(2, 4, period=0), "period: got 0"),
        (lambda: pruning.StochasticGradientPruning(1), r"sparsity: got 1, expected at least 0 and less than 1"),
        (lambda: pruning.StochasticGradientPruning(0.5, window=0), "window: got 0"),
        (lambda: pruning.SWAT(0.5).before_forward("a", np.ones((0, 4))), r"weight: got shape \(0, 4\)"),
        (lambda: pruning.SWAT(0.5).before_forward("a", np.full((4, 4), np.nan)), "weight: got NaN"),
        (lambda: pruning.SWAT(0.5).after_forward("a", np.full((4, 4), np.nan)), "x: got NaN"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pruning.SWAT("a"), "sparsity: got 'a'"),
        (lambda: pruning.SWAT(0.5, structured=1), "structured: got 1, expected True or False"),
        (lambda: pruning.Method(dense="conv1"), "dense: got 'conv1', expected a collection of names"),
        (lambda: pruning.Method(dense=None), "dense: got None, expected a collection of names"),
        (lambda: pruning.SWAT(0.5).before_forward("a", np.ones((4, 4), int)), "weight: got dtype int64"),
    ],
)
def test_errors_of_type(make, message):
    with pytest.raises(TypeError, match=message):
        make()


class Scaling(pruning.Method):
    """What each hook gives back is told by its factor."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def before_forward(self, layer, weight, *, groups=1, training=True):
        self.seen.append((layer, training))
        return 2 * weight

    def after_forward(self, layer, x):
        return 3 * x, {"threshold": 6.0}

    def before_backward(self, layer, gradient):
        return 5 * gradient


def test_layers_go_on_with_what_hooks_return():
    x, weight, grad_output = operands(dtype=np.float64)
    layer = network.Convolution(16, 32, rng=0, dtype=np.float64)
    layer.name, layer.method, layer.weight = "conv", Scaling(), weight
    y = layer.forward(x)
    grad_x = layer.backward(grad_output)
    expected = dense_step(x, 2 * weight, np.where(np.abs(x) > 2, 3 * x, 0), grad_output)
    check_step((y, grad_x / 5, layer.gradients["weight"]), expected)
    dense = dense_step(x, weight, x, grad_output)
    check_step([layer.calls[name].run_dense() for name in ("forward", "backward_data", "backward_weight")], dense)
    np.testing.assert_array_equal(layer.forward(x, training=False), expected[0])
    assert layer.method.seen == [("conv", True), ("conv", False)]


def test_methods_of_the_command():
    """The first layer is dense where weights are pruned, nearest sixteenths are N:M, and seeds are used."""
    small = network.build((8, 8), 2, widths=(16, 16))
    expected = {0.8: (3, 0.2), 0.5: (8, 0.5), 0.999: (1, 0.001), 0.0: (16, 1)}
    for sparsity, (n, density) in expected.items():
        swat, nm = (methods.make(name, sparsity, small, 0) for name in ("swat", "nm"))
        assert (swat.sparsity, nm.n, nm.m) == (sparsity, n, 16)
        weight = small.weighted["conv2"].weight
        assert nm.before_forward("conv2", weight).density == n / 16
        assert np.count_nonzero(getattr(swat.before_forward("conv2", weight), "dense", weight)) / weight.size == (
            pytest.approx(density, abs=1e-3)
        )
        for method in (swat, nm):
            first = small.weighted["conv1"].weight
            assert method.before_forward("conv1", first) is first
    assert type(methods.make("none", 0.8, small, 0)) is pruning.Method
    gradient, pruned = np.random.default_rng(0).standard_normal(1000, np.float32), []
    for seed in (0, 0, 1):
        method = methods.make("stochastic", 0.8, small, seed)
        for _ in range(method.window):
            method.before_backward("conv1", gradient.copy())
        pruned.append(method.before_backward("conv1", gradient.copy()))
    np.testing.assert_array_equal(pruned[0], pruned[1])
    assert not np.array_equal(pruned[0], pruned[2])


def small_network(name, sparsity, dtype=np.float32, seed=6):
    small = network.build((8, 8), 2, widths=(16, 16), rng=seed, dtype=dtype)
    small.use(methods.make(name, sparsity, small, seed))
    return small


def test_gradients_are_those_of_the_masked_network():
    """backward_data goes through the masked weights: so the gradient of weights that are kept is that of the loss."""
    small = small_network("nm", 0.5, np.float64)
    rng = np.random.default_rng(7)
    for layer in small.weighted.values():
        layer.bias += rng.standard_normal(layer.bias.shape)
    x, labels = rng.random((3, 8, 8, 1)), np.array([1, 0, 1])
    small.step(x, labels)
    gradients = {name: layer.gradients["weight"] for name, layer in small.weighted.items()}
    for name, layer in small.weighted.items():
        used = small.method.before_forward(name, layer.weight, training=False)
        mask = 1.0 if used is layer.weight else used.to_dense() != 0
        direction = rng.standard_normal(layer.weight.shape) * mask
        numerical = directional_derivative(
            lambda: network.softmax_cross_entropy(small.forward(x, training=False), labels)[0], layer.weight, direction
        )
        assert numerical == pytest.approx(np.vdot(gradients[name], direction), rel=1e-5, abs=1e-8), name
        if name not in ("conv1", "linear"):
            assert np.count_nonzero(mask) == mask.size / 2
            assert np.count_nonzero(gradients[name][~mask]) > 0.3 * np.count_nonzero(~mask)  # straight through


def test_an_unknown_method_is_an_error():
    with pytest.raises(ValueError, match="name: got 'swatt', expected one of 'none', 'swat', 'nm', 'stochastic'"):
        small_network("swatt", 0.5)


@pytest.mark.parametrize("name", methods.NAMES)
def test_every_method_learns(name):
    small = small_network(name, 0.5)
    images = stripes(96)
    history = train.fit(small, images, images, epochs=6, batch=16, learning_rate=0.05, rng=8)
    assert history[-1]["loss"] < 0.6 * history[0]["loss"]
    assert history[-1]["test_accuracy"] > 0.9
    used = small.method.before_forward("conv2", small.weighted["conv2"].weight, training=False)
    if name in ("swat", "nm"):
        assert used.density == pytest.approx(0.5, abs=0.01)
        assert used.density == pytest.approx(np.mean(used.to_dense() != 0))
    else:
        assert used is small.weighted["conv2"].weight
    _, options = small.method.after_forward("conv3", small.weighted["conv3"].x)
    assert (options.get("threshold", 0) > 0) == (name == "swat" and np.mean(small.weighted["conv3"].x == 0) < 0.5)


def test_methods_do_not_depend_on_threads():
    images = stripes(64)
    for name in methods.NAMES:
        weights = []
        for threads in (1, 2):
            small = small_network(name, 0.7)
            for layer in small.weighted.values():
                layer.num_threads = threads
            train.fit(small, images, images, epochs=2, batch=16, learning_rate=0.05, rng=9)
            weights.append({key: layer.weight for key, layer in small.weighted.items()})
        for key, weight in weights[0].items():
            np.testing.assert_array_equal(weight, weights[1][key], err_msg=f"{name} {key}")


def test_comparison_of_methods():
    runs = train.run(
        (*stripes(32), *stripes(32)), epochs=1, batch=16, learning_rate=0.01, names=methods.NAMES, sparsity=0.75
    )
    assert [run["method"] for run in runs["runs"]] == list(methods.NAMES)
    lines = report.comparison(runs).splitlines()
    assert lines[0].split()[:2] == ["method", "zeros:"]
    rows = {line.split()[0]: line.split()[1:] for line in lines[2:]}
    assert list(rows) == list(methods.NAMES)
    assert rows["none"][0] == "0.0%"
    assert rows["none"][5] == "+0.0"
    assert float(rows["swat"][0].rstrip("%")) > 60
    assert float(rows["nm"][0].rstrip("%")) > 60
    for run in runs["runs"]:
        shown = rows[run["method"]]
        assert shown[4] == f"{run['test_accuracy']:.1%}"
        assert shown[7] == f"{run['step']['speedup']:.2f}"
        assert shown[9] == f"{run['convolutions']['speedup']:.2f}"


# --- a training loop's last batch may be empty ---


def test_steps_without_images_leave_no_trace():
    """An empty batch passes through every hook and every pass, and the next batch is as if it had not been."""
    x, weight, grad_output = operands()
    for method, same in zip(every_method(), every_method(), strict=True):
        for batch in (x, x[:0], 2 * x, x[:0], 3 * x):
            if len(batch):
                got, wanted = (step(one, batch, weight, grad_output.copy()) for one in (method, same))
                check_step(got, wanted)
                continue
            y, grad_x, grad_weight = step(method, batch, weight, grad_output[:0].copy())
            assert y.shape == (0, 7, 6, 32) and grad_x.shape == batch.shape
            assert grad_weight.shape == weight.shape and not grad_weight.any()


@pytest.mark.parametrize("name", methods.NAMES)
def test_network_without_images(name):
    """Forward, loss, backward and the optimiser: momentum goes on, nothing becomes NaN."""
    net = small_network(name, 0.5)
    images, labels = stripes(8)
    optimizer = network.SGD(net.weighted.values())
    for count in (8, 0, 8, 0):
        x = train.to_input(images[:count])
        loss, scores = net.step(x, labels[:count])
        optimizer.step(0.01)
        assert scores.shape[0] == count and (loss > 0) == (count > 0)
        for layer in net.weighted.values():
            assert np.isfinite(layer.weight).all() and np.isfinite(layer.bias).all()
            assert any(map(np.any, layer.gradients.values())) == (count > 0)


HOOKS = ("before_forward", "after_forward", "before_backward")
MAKERS = {
    "Method": lambda **options: pruning.Method(**options),
    "SWAT": lambda **options: pruning.SWAT(0.5, **options),
    "TransposableNM": lambda **options: pruning.TransposableNM(2, 4, **options),
    "StochasticGradientPruning": lambda **options: pruning.StochasticGradientPruning(0.5, rng=0, **options),
}


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("hook", HOOKS)
def test_hooks_have_docstrings(kind, hook):
    assert len(getattr(getattr(pruning, kind), hook).__doc__.split()) > 5


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_dense_names_no_layer(make):
    """It is seen when the first backward pass begins: until then all layers have been forward."""
    x, weight, grad_output = operands()
    method = make(dense=["first", "lats"])
    for layer in ("first", "middle", "last"):
        method.before_forward(layer, weight)
        method.after_forward(layer, x)
    with pytest.raises(ValueError, match=r"^dense: got 'lats', expected names of layers: first, last, middle$"):
        method.before_backward("last", grad_output.copy())
    with pytest.raises(ValueError, match=r"^dense: got 'first', expected names of layers: a, b$"):
        method.check_layers(["a", "b"])


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_dense_names_of_layers(make):
    """All of them known: nothing is said in any step, and later layers may come."""
    x, weight, grad_output = operands()
    method = make(dense=["first"])
    for layers in (["first", "last"], ["last", "new"]):
        for layer in layers:
            method.before_forward(layer, weight)
            method.after_forward(layer, x)
        for layer in reversed(layers):
            method.before_backward(layer, grad_output.copy())
    known = make(dense=["not shown"])  # its names were checked before; its hooks see a part of the network
    known.check_layers(["not shown", "other"])
    known.before_forward("other", weight)
    known.before_backward("other", grad_output.copy())
    gradients_only = make(dense=["first"])
    gradients_only.before_backward("last", grad_output.copy())  # no forward pass was shown: nothing is known


def test_the_network_checks_dense_at_once():
    small = network.build((8, 8), 2, widths=(16, 16), rng=6)
    with pytest.raises(ValueError, match=r"^dense: got 'conv9', expected names of layers: conv1, conv2, conv3"):
        small.use(pruning.SWAT(0.5, dense=["conv9"]))
