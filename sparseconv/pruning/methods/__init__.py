"""Training methods: what becomes of weights, activations and gradients in each step of a training loop.

====================  =================================================================================
method                Method: the hooks that all of them have, and what they share
swat                  SWAT: the largest weights and activations
transposable_nm       TransposableNM: weights under masks that are N:M in both directions
stochastic_gradients  StochasticGradientPruning: small gradients become zero or a threshold, at random
====================  =================================================================================
"""

from .method import Method
from .stochastic_gradients import StochasticGradientPruning
from .swat import SWAT
from .transposable_nm import TransposableNM

__all__ = ["SWAT", "Method", "StochasticGradientPruning", "TransposableNM"]
