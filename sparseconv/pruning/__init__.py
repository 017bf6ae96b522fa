"""Sparsity made on purpose.

==============  =======================================================================================================
nm              nm_mask: the n largest of every m weights
transposable    transposable_nm_mask: n of every m in both directions, so that the transposed weights are N:M too
diversity       mask_diversity: how many masks a pattern admits; unstructured_to_nm: the pattern for a sparsity
repair          repair_weights: kept weights refitted to what the layer gave before pruning
==============  =======================================================================================================
"""

from .diversity import mask_diversity, unstructured_to_nm
from .nm import nm_mask
from .repair import repair_weights
from .transposable import transposable_nm_mask

__all__ = ["mask_diversity", "nm_mask", "repair_weights", "transposable_nm_mask", "unstructured_to_nm"]
