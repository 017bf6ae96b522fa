"""Sparsity made on purpose: how much of it each layer gets, and what it saves.

>>> from sparseconv import pruning
>>> layers = pruning.network("resnet50", "imagenet")
>>> round(pruning.training_flops(layers, 0.9)["training"], 3)
0.856

The subpackage (plain Python; arrays come in where masks are made):

==========  ===========================================================================================================
networks    Layer; network: the layers of VGG, ResNet, WideResNet and DenseNet, from their definitions
budget      sparsity_distribution: one sparsity per layer (SWAT-U, -ERK, -M); training_flops: FLOPs and memory saved
==========  ===========================================================================================================
"""

from .budget import sparsity_distribution, training_flops
from .networks import Layer, network

__all__ = ["Layer", "network", "sparsity_distribution", "training_flops"]
