"""The three passes against our dense kernels and against oneDNN: ratios of times that were taken in turn."""

import os

from sparseconv import cpu
from sparseconv.benchmark.layers import SETS, parse
from sparseconv.benchmark.measure import Settings, compare, keep_memory
from sparseconv.benchmark.operands import PASSES, SPARSE_OPERANDS, random_operands
from sparseconv.benchmark.peers import PEERS, default_peer, prepare_torch
from sparseconv.benchmark.regret import measure_regret, plan_for

# Results are kept under these values: append, do not change. They do not depend on the machine, so that results of
# several machines fit together; what a machine does not have is "n/a" there.
LAYERS = ("64,64,56 3x3", "256,256,14 3x3", "128,128,56 3x3/2", "256,1024,14 1x1")
ISAS = ("avx512", "avx2")
SPARSITIES = (0.0, 0.5, 0.9)
THREADS = (1, 2)
SKIPPED_LAYERS = ("64,64,56 3x3", "256,256,14 3x3", "256,64,56 1x1")  # where zeros are in a mask or in the weights
SKIPPED_SPARSITIES = (0.5, 0.8, 0.9)
SKIPPED_ISAS = ISAS[:1]
if os.environ.get("SPARSECONV_BENCH") == "all":
    LAYERS = tuple(dict.fromkeys([*LAYERS, *SETS["all"], *SETS["unusual"]]))
    ISAS = (*ISAS, "neon", "scalar")
    SPARSITIES = (*SPARSITIES, 0.3, 0.7, 0.8, 0.95)
    THREADS = (*THREADS, 4, 8)
    SKIPPED_LAYERS = tuple(dict.fromkeys([*SKIPPED_LAYERS, *SETS["all"]]))
    SKIPPED_SPARSITIES = (*SKIPPED_SPARSITIES, 0.0, 0.7, 0.95)
    SKIPPED_ISAS = ISAS

SECONDS = 0.5  # for the pairs of one ratio

# What the call gets where zeros are in a mask or in the weights: plain weights are packed in the call.
FORMS = {
    "float mask": {"mask": "float"},
    "bit mask": {"mask": "bits"},
    "plain": {"packed": False},
    "packed": {"packed": True},
}


def _use(isa):
    if isa not in cpu.available_isas():
        raise NotImplementedError(f"this machine does not run {isa}")
    cpu.use_isa(isa)


class _Pass:
    """Our time divided by the peer's, lower is better: asv knows no other direction."""

    which = ""
    zeros_in = "input"
    version = "1"  # by default, every edit of this file would void the results so far
    unit = "our time / the peer's"
    timeout = 120
    params = (tuple(PEERS), LAYERS, ISAS, SPARSITIES, THREADS)
    param_names = ("peer", "layer", "isa", "sparsity", "threads")

    def setup(self, peer, layer, isa, sparsity, threads, **form):
        """Make the operands; asv shows what is not possible here as "n/a"."""
        _use(isa)
        if threads > cpu.num_threads():
            raise NotImplementedError(f"this machine has fewer than {threads} CPUs")
        if peer == "torch" and default_peer() != "torch":
            raise NotImplementedError("torch is not installed")
        keep_memory()
        if peer == "torch":
            prepare_torch(isa)
        self.settings = Settings(against=peer, threads=threads, seconds=SECONDS, zeros_in=self.zeros_in, **form)
        zeros = {self.settings.sparse_operand(self.which): sparsity}
        self.operands = random_operands(parse(layer), zeros, batch=self.settings.batch, layout=self.settings.layout)

    def track_ratio(self, *_):
        """Both sides in turn, in this process."""
        seconds, peer_seconds = compare(self.which, self.operands, self.settings)
        return seconds / peer_seconds


class Forward(_Pass):
    which = "forward"


class BackwardData(_Pass):
    which = "backward_data"


class BackwardWeight(_Pass):
    which = "backward_weight"


class _Given(_Pass):
    """Where the call is given a mask, or weights with zeros, in several forms: against oneDNN's dense pass."""

    param_names = ("layer", "isa", "sparsity", "given")

    def setup(self, layer, isa, sparsity, given):
        super().setup("torch", layer, isa, sparsity, 1, **FORMS[given])


class BackwardDataNeeded(_Given):
    which, zeros_in = "backward_data", "output"
    params = (SKIPPED_LAYERS, SKIPPED_ISAS, SKIPPED_SPARSITIES, ("float mask", "bit mask"))


class ForwardWeights(_Given):
    which, zeros_in = "forward", "weight"
    params = (SKIPPED_LAYERS, SKIPPED_ISAS, SKIPPED_SPARSITIES, ("plain", "packed"))


class BackwardDataWeights(_Given):
    which, zeros_in = "backward_data", "weight"
    params = (SKIPPED_LAYERS, SKIPPED_ISAS, SKIPPED_SPARSITIES, ("packed",))  # packing costs what it does in forward


class BackwardWeightFilters(_Given):
    which, zeros_in = "backward_weight", "filters"
    params = (SKIPPED_LAYERS, SKIPPED_ISAS, SKIPPED_SPARSITIES, ("float mask",))


class Regret:
    """Time of `skip="auto"` over that of the fastest choice: what deciding costs, and deciding wrongly."""

    version = "1"
    unit = "auto / the fastest choice"
    timeout = 120
    params = (PASSES, LAYERS, ISAS, SPARSITIES)
    param_names = ("pass", "layer", "isa", "sparsity")

    def setup(self, which, layer, isa, sparsity):
        _use(isa)
        keep_memory()

    def track_ratio(self, which, layer, isa, sparsity):
        settings = Settings(threads=1, seconds=SECONDS)
        [[cell]] = measure_regret([parse(layer)], [which], [sparsity], settings)
        return cell.ratio


class Blocks:
    """Sizes of the skipping kernels' blocks, which may follow from the CPU's caches and registers."""

    version = "1"
    unit = "channels, vectors, rows or bytes"
    sizes = ("channel_block", "lane_vectors", "chunk_rows", "scratch_bytes")
    params = (PASSES, LAYERS, ISAS, sizes)
    param_names = ("pass", "layer", "isa", "size")

    def setup(self, which, layer, isa, size):
        _use(isa)

    def track_size(self, which, layer, isa, size):
        operand = SPARSE_OPERANDS[which][0]
        operands = random_operands(parse(layer), {operand: 0.5}, batch=16, layout="NHWC")
        plan = plan_for(which, operands, threads=1, skip=operand)
        return plan.scratch_bytes if size == "scratch_bytes" else plan.blocking[size]
