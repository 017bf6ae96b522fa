"""Prune a network by torch.nn.utils.prune, train it on, and convert it, which makes it faster.

    pip install '.[torch]' && python examples/prune_torch.py [STEPS]
"""

import copy
import sys
from functools import partial
from timeit import timeit

import torch
from torch import nn
from torch.nn.utils import prune

import sparseconv.data
import sparseconv.torch as sct


def network():
    layers = []
    for channels_in, channels, stride in ((1, 32, 1), (32, 64, 2), (64, 64, 1), (64, 128, 2), (128, 128, 1)):
        layers += [nn.Conv2d(channels_in, channels, 3, stride, 1), nn.BatchNorm2d(channels), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10))


def train(model, images, labels, steps, rate, batch=64):
    optimizer = torch.optim.SGD(model.train().parameters(), rate, momentum=0.9)
    for step in range(steps):
        chosen = torch.arange(step * batch, (step + 1) * batch) % len(images)
        optimizer.param_groups[0]["lr"] = rate * (1 - step / steps)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images[chosen]), labels[chosen].long()).backward()
        optimizer.step()


def main(steps=300):
    torch.manual_seed(0)
    images, labels, x, y = (torch.from_numpy(array) for array in sparseconv.data.load())
    images, x = ((array[:, None] / 255).to(memory_format=torch.channels_last) for array in (images, x))
    model = network()
    train(model, images, labels, steps, 0.05)
    models = {"dense with torch": copy.deepcopy(model), "dense converted": copy.deepcopy(model)}
    weights = [(layer, "weight") for layer in model if isinstance(layer, nn.Conv2d)]
    prune.global_unstructured(weights, prune.L1Unstructured, amount=0.9)  # refuses weights in channels_last memory
    train(model, images, labels, steps // 2, 0.02)
    for weight in weights:
        prune.remove(*weight)
    models |= {"pruned with torch": copy.deepcopy(model), "pruned converted": model}
    for name, model in models.items():
        model.to(memory_format=torch.channels_last).eval()
        if "converted" in name:
            print(name, sct.convert_(model, x[:64], fold=True), sep="\n")
    with torch.no_grad():
        turns = [[timeit(partial(net, x[:64]), number=1) for net in models.values()] for _ in range(30)]
        for (name, net), seconds in zip(models.items(), zip(*turns, strict=True), strict=True):
            print(f"{(net(x).argmax(1) == y).float().mean():.1%} right, {1e3 * min(seconds):.2f} ms for {name}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
