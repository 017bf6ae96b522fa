"""Training to the end: all of Fashion-MNIST, on PyTorch, converted, and under each method of pruning.

    python bench/training.py --data DIR --out FILE.jsonl [--models vgg resnet] [--methods torch ...] [--seeds 5]

DIR has the four IDX files (Debian: /usr/share/datasets/fashion-mnist, package dataset-fashion-mnist); without it the
subset that comes with the library is used. A seed means the same initial weights and the same order of images for
every method. Methods take turns within a seed, so that seeds are complete wherever one stops. Each run appends one line
to FILE; runs that it has already are skipped, and --runs 1 makes one more.

The clock counts training and conversion, no evaluation and no counting of zeros. `training_report.py` makes tables and
a picture of the file.
"""

import argparse
import copy
import json
import statistics
import time
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import sparseconv.data
import sparseconv.torch as sct
from sparseconv import cpu
from sparseconv.pruning import SWAT, Method, StochasticGradientPruning, TransposableNM

RATE = 0.1  # the learning rate at its highest
METHODS = ("torch", "converted", "swat", "nm", "stochastic")
SETTINGS = ("epochs", "batch", "warm_up", "threads", "needed", "train_images", "test_images")  # one value in a file


def vgg():
    """Convolutions and ReLU, no batch normalisation: gradients have zeros, too. 18 million multiply-adds an image."""
    layers = []
    for channels_in, channels, stride in ((1, 64, 2), (64, 64, 1), (64, 128, 1), (128, 128, 1)):
        layers += [nn.Conv2d(channels_in, channels, 3, stride, 1), nn.ReLU()]
        nn.init.kaiming_normal_(layers[-2].weight)
        if len(layers) in (4, 9):
            layers.append(nn.MaxPool2d(2))  # from 14 x 14 to 7 x 7 to 3 x 3
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(128 * 9, 10))


class Block(nn.Module):
    """Two convolutions with batch normalisation, and what goes around them."""

    def __init__(self, channels_in, channels, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Sequential()
        if stride > 1:
            projection = nn.Conv2d(channels_in, channels, 1, stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(channels))

    def forward(self, x):
        y = self.norm1(self.conv1(x)).relu()
        return (self.norm2(self.conv2(y)) + self.shortcut(x)).relu()


def resnet():
    """Two residual blocks with batch normalisation. 22 million multiply-adds an image."""
    first = [nn.Conv2d(1, 64, 3, 2, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    blocks = [Block(64, 64, 1), Block(64, 96, 2)]
    return nn.Sequential(*first, *blocks, nn.AvgPool2d(2), nn.Flatten(), nn.Linear(96 * 9, 10))


MODELS = {"vgg": vgg, "resnet": resnet}


class Counted(Method):
    """Another method, and the zeros that it leaves in what the passes of each layer read."""

    def __init__(self, method):
        super().__init__(dense=method.dense)
        self.method, self.weights, self.saved, self.gradients = method, {}, {}, {}

    def before_forward(self, layer, weight, **options):
        used = self.method.before_forward(layer, weight, **options)
        self.weights[layer] = 1 - used.density if isinstance(used, sparseconv.PackedWeight) else zeros_of(used)
        return used

    def after_forward(self, layer, x):
        kept, options = self.method.after_forward(layer, x)
        self.saved[layer] = zeros_of(kept, options.get("threshold", 0.0))
        return kept, options

    def before_backward(self, layer, gradient):
        gradient = self.method.before_backward(layer, gradient)
        self.gradients[layer] = zeros_of(gradient)
        return gradient


def zeros_of(array, threshold=0.0):
    """Share of zeros; with a threshold, of what counts as such."""
    return float(np.mean(np.abs(array) <= threshold))


class Pruning:
    """A method on a model's convolutions but the first, whose input has no zeros.

    With `needed`, gradients that a ReLU masks next are not computed, which `attach` leaves to the caller.
    """

    def __init__(self, name, model, seed, report, needed=False):
        self.layers = convolutions(model)[1:]
        # Where batch normalisation follows, the gradient of the result is what has to become sparse.
        has_norm = any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
        self.gradients = "output" if has_norm else "input"
        if name == "swat":
            self.method = SWAT(0.8, period=20)  # as its authors' code on CIFAR
        elif name == "nm":
            self.method = TransposableNM(4, 8)
        else:
            self.method = StochasticGradientPruning(0.9, rng=seed)
        # Thresholds for gradients of inputs are taken from all of them.
        needed = needed and (name != "stochastic" or self.gradients == "output")
        for layer in report.layers:
            if layer.name in self.layers and layer.input_is_relu and needed:
                model.get_submodule(layer.name).input_is_relu = True

    def attach(self, model, method):
        sct.attach(model, method, filter_fn=lambda module, name: name in self.layers, gradients=self.gradients)


def convolutions(model):
    """Names, in the model's order."""
    return [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]


def count_zeros(model, pruning, images, labels):
    """Shares of zeros in what each pass of each convolution reads, in one step of a copy of the model.

    {"forward": {layer: [x, weight]}, "backward_data": {layer: [grad_output, weight, x]}, "backward_weight":
    {layer: [what is kept of x, grad_output]}}; where x is zero behind a ReLU, backward_data need not compute.
    """
    model = copy.deepcopy(model)
    counted = None
    if pruning is not None:
        sct.detach(model)
        counted = Counted(copy.deepcopy(pruning.method))
        pruning.attach(model, counted)
    inputs, gradients = {}, {}

    def hook(name):
        def watch(module, arguments, output):
            inputs[name] = zeros_of(arguments[0].detach().numpy())
            output.register_hook(lambda gradient: gradients.update({name: zeros_of(gradient.numpy())}))

        return watch

    names = convolutions(model)
    for name in names:
        model.get_submodule(name).register_forward_hook(hook(name))
    cross_entropy(model(images), labels).backward()
    weights = {name: zeros_of(model.get_submodule(name).weight.detach().numpy()) for name in names}
    saved = dict(inputs)
    if counted is not None:
        weights |= counted.weights
        saved |= counted.saved
        if pruning.gradients == "output":
            gradients |= counted.gradients
    found = {
        "forward": {name: [inputs[name], weights[name]] for name in names},
        "backward_data": {name: [gradients[name], weights[name], inputs[name]] for name in names[1:]},
        "backward_weight": {name: [saved[name], gradients[name]] for name in names},
    }
    return {
        which: {name: [round(share, 3) for share in shares] for name, shares in layers.items()}
        for which, layers in found.items()
    }


def multiply_adds(model, image):
    """{convolution: multiply-adds of its forward pass for one image}."""
    found, handles = {}, []

    def hook(name):
        def watch(module, arguments, output):
            found[name] = output[0].numel() * module.weight[0].numel()

        return watch

    for name in convolutions(model):
        handles.append(model.get_submodule(name).register_forward_hook(hook(name)))
    with torch.no_grad():
        model.eval()(image)
    model.train()
    for handle in handles:
        handle.remove()
    return found


def checksum(tensors):
    """A number that tells whether two runs began with the same."""
    total = 0
    for tensor in tensors:
        total = zlib.crc32(tensor.detach().contiguous().numpy().tobytes(), total)
    return total


def accuracy(model, images, labels, batch=500):
    """Share of right answers, in eval mode; the model is in training mode again after it."""
    model.eval()
    with torch.no_grad():
        right = sum(
            (model(images[at : at + batch]).argmax(1) == labels[at : at + batch]).sum().item()
            for at in range(0, len(images), batch)
        )
    model.train()
    return right / len(images)


def load(directory, most=None):
    """Normalised images, channels_last, and labels for training and testing; at most so many of each."""
    images, labels, test_images, test_labels = (
        torch.from_numpy(np.array(one)) for one in sparseconv.data.load(directory)
    )
    mean, deviation = 0.286, 0.353  # of all training images, in units of 255

    def prepared(one):
        return ((one[:most, None] / 255 - mean) / deviation).to(memory_format=torch.channels_last)

    return prepared(images), labels[:most].long(), prepared(test_images), test_labels[:most].long()


class Clock:
    """Seconds of training; it stands still outside of `with`."""

    def __init__(self):
        self.seconds = 0.0

    def __enter__(self):
        self._started = time.perf_counter()

    def __exit__(self, *error):
        self.seconds += time.perf_counter() - self._started


def train(model_name, method, seed, data, settings, *, evaluations, layer_seconds=0.02):
    """One run; what its line of the file says.

    The first `warm_up` steps are PyTorch's in all runs: zeros of random weights are others than those to come, and
    `convert_` decides by what it sees.
    """
    images, labels, test_images, test_labels = data
    epochs, batch, warm_up = (settings[name] for name in ("epochs", "batch", "warm_up"))
    steps = len(images) // batch
    if not 1 <= warm_up < epochs * steps:
        raise ValueError(
            f"warm_up: got {warm_up}, expected at least 1 and fewer than the {epochs * steps} steps of a run"
        )
    torch.manual_seed(seed)
    model = MODELS[model_name]().to(memory_format=torch.channels_last)
    initial = checksum(model.parameters())
    orders = [
        torch.randperm(len(images), generator=torch.Generator().manual_seed(1000 * seed + e)) for e in range(epochs)
    ]
    macs = multiply_adds(model, images[:1])
    optimiser = torch.optim.SGD(model.parameters(), RATE / 25, momentum=0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, RATE, total_steps=epochs * steps, pct_start=0.25, cycle_momentum=False
    )
    training, converting = Clock(), Clock()
    points, zeros, steps_taken, report, pruning = [], [], [], None, None
    pauses = {round(steps * (part + 1) / evaluations) for part in range(evaluations)}
    for epoch in range(epochs):
        step = 0
        while step < steps:
            until = min(pause for pause in pauses if pause > step)
            if report is None and method != "torch" and epoch * steps + step < warm_up:
                until = min(until, warm_up - epoch * steps)
            chosen = orders[epoch][step * batch : until * batch].view(-1, batch)
            with training:
                for one in chosen:
                    started = time.perf_counter()
                    loss = cross_entropy(model(images[one]), labels[one])
                    optimiser.zero_grad()
                    loss.backward()
                    optimiser.step()
                    schedule.step()
                    steps_taken.append(time.perf_counter() - started)
            step = until
            sample = images[chosen[-1]], labels[chosen[-1]]
            if report is None and method != "torch" and epoch * steps + step >= warm_up:
                with training, converting:
                    report = sct.convert_(
                        model, lambda one, x=sample[0], y=sample[1]: cross_entropy(one(x), y),
                        config=sct.Config(seconds=layer_seconds),
                    )  # fmt: skip
                    if method != "converted":
                        pruning = Pruning(method, model, seed, report, settings["needed"])
                        pruning.attach(model, pruning.method)
            if step in pauses:
                seen = (epoch * steps + step) * batch
                points.append([round(training.seconds, 3), seen, round(accuracy(model, test_images, test_labels), 4)])
        zeros.append(count_zeros(model, pruning, *sample))
    return {
        "model": model_name, "method": method, "seed": seed, **settings, "rate": RATE,
        "seconds": round(training.seconds, 3), "conversion_seconds": round(converting.seconds, 3),
        "step_seconds": round(statistics.median(steps_taken[warm_up:]), 5),
        "points": points, "zeros": zeros, "multiply_adds": macs,
        "conversion": None if report is None else summary(report),
        "initial": initial, "order": checksum(orders),
        "isa": cpu.isa(), "torch": torch.__version__, "sparseconv": sparseconv.__version__,
    }  # fmt: skip


def summary(report):
    """The report of a conversion, in few words: by layer whose it is, and gains pass by pass."""
    return {
        "converted": [layer.name for layer in report.layers if layer.converted],
        "gains": {
            layer.name: {which: round(done.speedup, 2) for which, done in layer.passes.items()}
            for layer in report.layers
        },
        "step": None if report.speedup is None else round(report.speedup, 2),
        "notes": report.notes,
    }


def read(path):
    """The runs of a file."""
    if path is None or not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def missing(runs, models, methods, seeds, settings):
    """(model, method, seed) of runs that are not there yet, whole seeds first; methods begin another way each time."""
    for run in runs:
        for name in SETTINGS:
            if run[name] != settings[name]:
                raise ValueError(f"out: has a run with {name} {run[name]}, expected {settings[name]} as in this one")
    done = {(run["model"], run["method"], run["seed"]) for run in runs}
    turns = []
    for seed in range(seeds):
        first = seed % len(methods)
        turns += [(model, method, seed) for model in models for method in (*methods[first:], *methods[:first])]
    return [turn for turn in turns if turn not in done]


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the IDX files (default: the bundled subset)")
    parser.add_argument("--models", nargs="+", choices=tuple(MODELS), default=list(MODELS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", type=int, default=5, help="how many (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--evaluations", type=int, default=3, help="in each epoch (default: %(default)s)")
    parser.add_argument("--warm-up", type=int, default=50, help="steps on PyTorch before conversion (%(default)s)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--needed", action="store_true", help="under methods, leave out gradients that a ReLU masks next"
    )
    parser.add_argument("--images", type=int, help="at most so many for training and for testing (default: all)")
    parser.add_argument("--runs", type=int, help="stop after so many (default: when all are done)")
    parser.add_argument("--out", type=Path, help="file that runs are appended to, one JSON object a line")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    data = load(arguments.data, arguments.images)
    settings = {name: getattr(arguments, name) for name in ("epochs", "batch", "warm_up", "threads", "needed")}
    settings |= {"train_images": len(data[0]), "test_images": len(data[2])}
    turns = missing(read(arguments.out), arguments.models, arguments.methods, arguments.seeds, settings)
    for model, method, seed in turns[: arguments.runs]:
        run = train(model, method, seed, data, settings, evaluations=arguments.evaluations)
        print(f"{model} {method}, seed {seed}: {run['points'][-1][2]:.2%} after {run['seconds']:.1f} s", flush=True)
        if arguments.out:
            with open(arguments.out, "a", encoding="utf-8") as file:
                print(json.dumps(run, separators=(",", ":")), file=file)


if __name__ == "__main__":
    main()
