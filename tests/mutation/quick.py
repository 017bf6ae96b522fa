"""The quick suite that mutants are held against: ``python tests/mutation/quick.py MODULE`` fails at the first fault.

Random calls with fixed seeds, some more whose arrays lie against pages that trap, then tests of what is too large for
them, of the family that was changed. All run on the instruction set with the fault alone. From the second part on
scratch memory holds NaN and ends with a page that traps, too.
"""

import os
import signal
import sys
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / name) for name in ("mutation", "fuzz", "support")]

SEED, CALLS = 3, 3000
GUARDED = 5  # for so many calls there is one more with guarded arrays
CALL_SECONDS, SUITE_SECONDS = 5, 100  # of CPU time
# What random calls cannot see, by folder: sums and searches that are longer than theirs.
LARGE = {
    "arrays": ("conv/test_long_sums.py::test_grad_bias", "masks/test_compressed.py", "masks/test_masks.py"),
    "pruning": ("pruning/test_pruning_topk.py", "pruning/test_pruning_stochastic.py", "pruning/test_pruning_nm.py",
                "pruning/test_pruning_transposable.py"),
    "gradient": ("conv/test_long_sums.py", "masks/test_gradient_mask.py::test_exact"),
    "rows": ("conv/test_few_positions.py::test_exact", "conv/test_backward_data.py::test_gaps_of_long_rows"),
    "outputs": ("masks/test_output_mask_kinds.py", "masks/test_output_mask.py::test_weights_are_packed_ahead",
                "masks/test_output_mask.py::test_one_weight_that_is_not_finite"),
    "weights": ("weights/test_weights.py::test_lanes",),
    "groups": ("conv/test_groups.py::test_exact", "conv/test_groups.py::test_threads_do_not_change_a_bit",
               "conv/test_residual.py::test_exact", "conv/test_long_sums.py"),
    "common": ("conv/test_long_sums.py", "kernels/test_weight_tile.py",
               "masks/test_operand_masks.py::test_words_with_one_bit_to_spare",
               "conv/test_semantics.py::test_denormals_of_the_bias_of_narrow_groups_are_zeros"),
    "simd": ("conv/test_long_sums.py", "conv/test_groups.py::test_exact", "masks/test_compressed.py",
             "pruning/test_pruning_topk.py"),
}  # fmt: skip


def main(module, folder, calls):
    import faulty

    faulty.install(module)
    import poison
    from fuzz_places import GUARDS, results_at
    from fuzz_results import judge
    from fuzz_run import drawn_at

    from sparseconv import cpu
    from sparseconv._core import _cpu

    assert cpu.isa() == faulty.ISA
    for index in range(calls + calls // GUARDED):
        place = None
        if index >= calls:
            place = GUARDS[index % 2]
            _cpu.poison_scratch(poison.BITS)
        signal.setitimer(signal.ITIMER_PROF, CALL_SECONDS)  # a call that hangs ends the process
        try:
            call = drawn_at(place, SEED, index)
            with results_at(place):
                judge(call)
        except Exception as error:
            print(f"random call {index}: {type(error).__name__}: {str(error)[:150]}")
            return 1
    signal.setitimer(signal.ITIMER_PROF, SUITE_SECONDS)
    if folder not in LARGE:
        return 0
    import pytest

    cpu.available_isas = lambda: [faulty.ISA]  # the `isa` fixture
    files = [str(TESTS / name) for name in LARGE[folder]]
    words = ["-x", "-q", "-p", "no:cacheprovider", "--no-header", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
    return pytest.main([*words, *files])


if __name__ == "__main__":
    module, folder, calls = [*sys.argv[1:], "", ""][:3]
    sys.exit(main(module, folder, int(calls or CALLS)))
