"""Sparsity made on purpose: how much of it each layer gets, which weights it takes, and what it saves.

>>> from sparseconv import pruning
>>> layers = pruning.network("resnet50", "imagenet")
>>> round(pruning.training_flops(layers, 0.9)["training"], 3)
0.856

==============  =======================================================================================================
networks        Layer; network: the layers of VGG, ResNet, WideResNet and DenseNet, from their definitions
budget          sparsity_distribution: one sparsity per layer (SWAT-U, -ERK, -M); training_flops: FLOPs and memory saved
topk            topk_threshold, topk_mask, TopK: the largest magnitudes of a tensor; channel_mask: whole slices
nm              nm_mask: the n largest of every m weights
transposable    transposable_nm_mask: n of every m in both directions, so that the transposed weights are N:M too
diversity       mask_diversity: how many masks a pattern admits; unstructured_to_nm: the pattern for a sparsity
repair          repair_weights: kept weights refitted to what the layer gave before pruning
stochastic      stochastic_prune, GradientPruner: small gradients become zero or a threshold, by chance and without bias
methods/        SWAT, TransposableNM, StochasticGradientPruning: for a training loop, all with the hooks of Method
==============  =======================================================================================================
"""

from .budget import sparsity_distribution, training_flops
from .diversity import mask_diversity, unstructured_to_nm
from .methods import SWAT, Method, StochasticGradientPruning, TransposableNM
from .networks import Layer, network
from .nm import nm_mask
from .repair import repair_weights
from .stochastic import GradientPruner, Pruned, stochastic_prune
from .topk import TopK, channel_mask, topk_mask, topk_threshold
from .transposable import transposable_nm_mask

__all__ = [
    "SWAT",
    "GradientPruner",
    "Layer",
    "Method",
    "Pruned",
    "StochasticGradientPruning",
    "TopK",
    "TransposableNM",
    "channel_mask",
    "mask_diversity",
    "network",
    "nm_mask",
    "repair_weights",
    "sparsity_distribution",
    "stochastic_prune",
    "topk_mask",
    "topk_threshold",
    "training_flops",
    "transposable_nm_mask",
    "unstructured_to_nm",
]
