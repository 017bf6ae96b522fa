"""Whole networks in PyTorch, as they are and converted: inference and training steps, in turns in one process.

    python bench/torch_models.py [vgg16|resnet34|resnet50|fixup50 ...] [--what inference train] [--batch 8]
                                 [--threads 1 2] [--zeros 0.61|profile]

Ratios are the other side's time divided by ours, medians of turns. Inference is compared with PyTorch after its own
`torch.fx.experimental.optimization.fuse`, too, which folds batch normalisation, and with oneDNN called for all of its
convolutions. "Convolutions alone" are all but the first, by the times that `convert_` takes inside the model: PyTorch's
over ours. With fewer than 16 images and one thread PyTorch computes 1x1 layers without oneDNN, which is slower on some
CPUs. --profile says where the time goes.
"""

import argparse
import copy
import json
import statistics
import time
from pathlib import Path

import torch
import torch.fx.experimental.optimization
from torch import nn

import sparseconv
import sparseconv.torch
from sparseconv.benchmark.measure import keep_memory
from sparseconv.torch.report import PASSES

if __package__:
    from .torch_networks import NETWORKS, ZEROS, network
else:
    from torch_networks import NETWORKS, ZEROS, network

KINDS = {  # of a profile's names, the first that fits
    "sparseconv": ("sparseconv",),
    "convolution": ("conv",),
    "batch_norm": ("batch_norm",),
    "add": ("add_", "aten::add", "_add_relu"),
    "relu": ("relu", "threshold", "clamp"),
    "pooling": ("pool", "mean"),
    "linear": ("addmm", "linear", "aten::mm"),
    "sgd": ("_foreach",),
    "copies": ("copy_", "fill_", "zero_"),
}


def inference(model, images):
    with torch.no_grad():
        return model(images)


def training_step(model, images, labels, optimiser):
    optimiser.zero_grad(set_to_none=True)
    nn.functional.cross_entropy(model(images), labels).backward()
    optimiser.step()


def sides(name, what, batch, zeros=ZEROS, config=None):
    """({name: function}, report of the conversion): PyTorch's sides first, ours last."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(batch, 3, 224, 224, generator=generator).to(memory_format=torch.channels_last)
    model = network(name, images, zeros)
    if what == "inference":
        model.eval()
        ours = copy.deepcopy(model)
        report = sparseconv.torch.convert_(ours, images, fold=True, config=config)
        fused = torch.fx.experimental.optimization.fuse(model).to(memory_format=torch.channels_last)
        named = {"torch": model, "torch, folded": fused, "oneDNN, folded": by_onednn(fused), "sparseconv": ours}
        return {side: lambda one=one: inference(one, images) for side, one in named.items()}, report
    labels = torch.randint(1000, (batch,), generator=generator)
    ours = copy.deepcopy(model)

    def loss(one):
        return nn.functional.cross_entropy(one(images), labels)

    report = sparseconv.torch.convert_(ours, loss, config=config)
    return {"torch": steps(model, images, labels), "sparseconv": steps(ours, images, labels)}, report


class OneDNN(nn.Conv2d):
    """PyTorch runs 1x1 layers without oneDNN on one thread, which is slower on some CPUs; here they run with it."""

    def _conv_forward(self, input, weight, bias):
        return torch.ops.aten.mkldnn_convolution(
            input, weight, bias, self.padding, self.stride, self.dilation, self.groups
        )


def by_onednn(model):
    """A copy of a model for inference whose convolutions are oneDNN's in any case."""
    model = copy.deepcopy(model)
    for module in model.modules():
        if type(module) is nn.Conv2d:
            module.__class__ = OneDNN
    return model


def steps(model, images, labels):
    """A function that takes one training step."""
    optimiser = torch.optim.SGD(model.parameters(), 1e-6)
    return lambda: training_step(model, images, labels, optimiser)


def convolutions(report):
    """{pass: (PyTorch's seconds, ours, those of the converted model)} of all convolutions but the first."""
    layers = [one for one in report.layers if one.module == "Conv2d" and one.weight_shape[1] > 3]
    found = {}
    for name in PASSES if report.backward else PASSES[:1]:
        pairs = [(one.passes[name], one.converted) for one in layers if name in one.passes]
        sides = [(one.torch_seconds, one.seconds, one.seconds if ours else one.torch_seconds) for one, ours in pairs]
        found[name] = tuple(map(sum, zip(*sides, strict=True)))
    return found


def compare(functions, seconds):
    """Seconds of each function, called in turns."""
    times = {side: [] for side in functions}
    for function in functions.values():
        function()
    end, turn = time.perf_counter() + seconds, 0
    while turn < 3 or time.perf_counter() < end:
        order = list(functions) if turn % 2 else list(functions)[::-1]
        for side in order:
            started = time.perf_counter()
            functions[side]()
            times[side].append(time.perf_counter() - started)
        turn += 1
    return times


def profile(function):
    """{kind: milliseconds} of one call, by the operators that spend them."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities) as profiler:
        function()
    found = {}
    for event in profiler.key_averages():
        kind = next((kind for kind, words in KINDS.items() if any(word in event.key for word in words)), "other")
        found[kind] = found.get(kind, 0.0) + 1e-3 * event.self_cpu_time_total
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", nargs="*", help=f"{', '.join(NETWORKS)} (default: all)")
    parser.add_argument("--what", nargs="+", choices=("inference", "train"), default=["inference", "train"])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=10.0, help="for the pairs of one line")
    parser.add_argument(
        "--zeros", type=lambda text: text if text == "profile" else float(text), default=ZEROS,
        help="share of a ReLU's results (%(default)s), or 'profile': those of trained networks, layer by layer",
    )  # fmt: skip
    parser.add_argument("--keep-memory", action="store_true", help="let malloc keep what is freed, for both sides")
    parser.add_argument("--layer-seconds", type=float, default=0.02, help="for each pass of each layer in convert_")
    parser.add_argument("--layers", action="store_true", help="print the report of each conversion")
    parser.add_argument("--profile", action="store_true", help="print where the time goes, in milliseconds")
    parser.add_argument("--json", type=Path, help="append results to this file, one JSON object a line")
    arguments = parser.parse_args(argv)
    if arguments.keep_memory:
        keep_memory()
    for name in arguments.network or NETWORKS:
        for what in arguments.what:
            for threads in arguments.threads:
                one_line(name, what, threads, arguments)


def one_line(name, what, threads, arguments):
    torch.set_num_threads(threads)
    config = sparseconv.torch.Config(seconds=arguments.layer_seconds)
    functions, report = sides(name, what, arguments.batch, arguments.zeros, config)
    if arguments.layers:
        print(report)
    times = {side: statistics.median(all) for side, all in compare(functions, arguments.seconds).items()}
    ours = times["sparseconv"]
    words = [f"{side} {1e3 * seconds:.0f} ms" for side, seconds in times.items()]
    ratios = [f"{seconds / ours:.2f} times {side}" for side, seconds in times.items() if side != "sparseconv"]
    zeros = [layer.zeros["input"] for layer in report.layers if layer.zeros.get("input", 0) > 0.05]
    print(
        f"{name} {what}, batch {arguments.batch}, {threads} threads, {statistics.fmean(zeros):.0%} zeros: "
        f"{', '.join(words)}: {', '.join(ratios)}",
        flush=True,
    )
    alone = convolutions(report)
    total = [sum(side) for side in zip(*alone.values(), strict=True)]
    gains = ", ".join(f"{name} {theirs / ours:.2f}" for name, (theirs, ours, _) in alone.items())
    print(
        f"  convolutions alone: {total[0] / total[1]:.2f} ({gains}), as converted {total[0] / total[2]:.2f}", flush=True
    )
    if arguments.profile:
        for side, function in functions.items():
            found = profile(function)
            print(f"  {side}: {', '.join(f'{kind} {value:.0f}' for kind, value in found.items() if value >= 0.5)}")
    if arguments.json:
        result = {
            "network": name, "what": what, "batch": arguments.batch, "threads": threads,
            "seconds": {side: round(one, 4) for side, one in times.items()},
            "zeros": arguments.zeros, "keep_memory": arguments.keep_memory,
            "isa": sparseconv.cpu.isa(), "torch": torch.__version__, "sparseconv": sparseconv.__version__,
            "converted": report.converted, "layers": len(report.layers),
            "convolutions": {name: [round(one, 5) for one in sides] for name, sides in alone.items()},
        }  # fmt: skip
        with open(arguments.json, "a", encoding="utf-8") as file:
            print(json.dumps(result), file=file)


if __name__ == "__main__":
    main()
