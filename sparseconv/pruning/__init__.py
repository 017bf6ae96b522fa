"""Sparsity made on purpose: how much of it each layer gets, which weights it takes, and what it saves.

>>> from sparseconv import pruning
>>> layers = pruning.network("resnet50", "imagenet")
>>> round(pruning.training_flops(layers, 0.9)["training"], 3)
0.856

==============  =======================================================================================================
networks        Layer; network: the layers of VGG, ResNet, WideResNet and DenseNet, from their definitions
budget          sparsity_distribution: one sparsity per layer (SWAT-U, -ERK, -M); training_flops: FLOPs and memory saved
nm              nm_mask: the n largest of every m weights
transposable    transposable_nm_mask: n of every m in both directions, so that the transposed weights are N:M too
diversity       mask_diversity: how many masks a pattern admits; unstructured_to_nm: the pattern for a sparsity
methods/        SWAT, TransposableNM, StochasticGradientPruning: for a training loop, all with the hooks of Method
repair          repair_weights: kept weights refitted to what the layer gave before pruning
==============  =======================================================================================================
"""

from .budget import sparsity_distribution, training_flops
from .diversity import mask_diversity, unstructured_to_nm
from .methods import SWAT, Method, StochasticGradientPruning, TransposableNM
from .networks import Layer, network
from .nm import nm_mask
from .repair import repair_weights
from .transposable import transposable_nm_mask

__all__ = [
    "SWAT",
    "Layer",
    "Method",
    "StochasticGradientPruning",
    "TransposableNM",
    "mask_diversity",
    "network",
    "nm_mask",
    "repair_weights",
    "sparsity_distribution",
    "training_flops",
    "transposable_nm_mask",
    "unstructured_to_nm",
]
