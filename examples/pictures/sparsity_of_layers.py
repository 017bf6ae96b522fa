"""The same share of weights, pruned evenly or by the size of layers (Erdos-Renyi-Kernel): ResNet-50 at 80%.

    pip install '.[plot]' && python examples/pictures/sparsity_of_layers.py layers.svg
"""

import sys

import matplotlib.pyplot as plt

from sparseconv import pruning


def main(path):
    layers = pruning.network("resnet50", "imagenet")
    figure, axis = plt.subplots(figsize=(8, 3.2), layout="constrained")
    for method in ("uniform", "erk"):
        sparsities = pruning.sparsity_distribution(layers, 0.8, method)
        saved = pruning.training_flops(layers, sparsities)["training"]
        zeros = [100 * sparsities[layer.name] for layer in layers]
        axis.step(range(len(layers)), zeros, where="mid", label=f"{method}: saves {saved:.0%} of training's operations")
    axis.set(xlabel="layer of ResNet-50", ylabel="zeros, %", ylim=(0, 101))
    axis.grid(alpha=0.3)
    figure.legend(loc="outside upper center", ncols=2)
    figure.savefig(path)


if __name__ == "__main__":
    main(sys.argv[1])
