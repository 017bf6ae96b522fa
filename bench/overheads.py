"""What is there beside the arithmetic: masks, packed and compressed arrays, thresholds, calls, the import, memory."""

import numpy as np

import sparseconv
from sparseconv.benchmark.layers import parse
from sparseconv.benchmark.measure import fastest_of_pairs, keep_memory
from sparseconv.benchmark.operands import PASSES, SPARSE_OPERANDS, random_operands
from sparseconv.benchmark.peers import ours

SECONDS = 0.5  # for the pairs of one ratio


class Masks:
    """13 MB of activations, half of them zero."""

    version = "1"

    def setup(self):
        self.x = random_operands(parse("64,64,56 3x3"), {"input": 0.5}, batch=16, layout="NHWC").x
        self.mask = sparseconv.masks.nonzero_mask(self.x)

    def time_nonzero_mask(self):
        sparseconv.masks.nonzero_mask(self.x)

    def time_relu(self):
        sparseconv.masks.relu(self.x)

    def time_density(self):
        sparseconv.masks.density(self.x)

    def time_unpack(self):
        sparseconv.masks.unpack(self.mask, self.x.shape)


class Compressed:
    """The same memory as bit mask and nonzero values, and back; and the share of its bytes that this takes."""

    version = "1"
    params = (0.5, 0.8, 0.9)
    param_names = ("sparsity",)

    def setup(self, sparsity):
        self.x = random_operands(parse("64,64,56 3x3"), {"input": sparsity}, batch=16, layout="NHWC").x
        self.compressed = sparseconv.compress(self.x)
        self.out = np.zeros_like(self.x)

    def time_compress(self, sparsity):
        sparseconv.compress(self.x, num_threads=1)

    def time_decompress(self, sparsity):
        sparseconv.decompress(self.compressed, out=self.out, num_threads=1)

    def track_bytes(self, sparsity):
        return self.compressed.nbytes / self.x.nbytes

    track_bytes.unit = "compressed / dense"


class Packing:
    """Lists for both passes, of a weight (512, 512, 3, 3) of which a tenth is left."""

    version = "1"

    def setup(self):
        self.threads = sparseconv.cpu.num_threads()
        sparseconv.cpu.set_num_threads(1)
        layer = parse("512,512,7 3x3")
        operands = random_operands(layer, {"weight": 0.9}, batch=1, layout="NHWC")
        self.weight = operands.weight
        self.packed = sparseconv.pack_weight(self.weight)
        # The first call of a pass makes its lists.
        options = layer.options | {"layout": "NHWC", "skip": "weight"}
        sparseconv.conv2d(operands.x, self.packed, **options)
        sparseconv.conv2d_backward_data(operands.grad_output, self.packed, operands.x.shape, **options)

    def teardown(self):
        sparseconv.cpu.set_num_threads(self.threads)

    def time_update(self):
        self.packed.update(self.weight)


class Threshold:
    """Half of the values below a threshold, against exact zeros in their places."""

    version = "1"
    params = (PASSES, ("64,64,56 3x3", "256,64,56 1x1"))
    param_names = ("pass", "layer")

    def setup(self, which, layer):
        keep_memory()
        operand = SPARSE_OPERANDS[which][0]
        full, half = (random_operands(parse(layer), {operand: share}, batch=16, layout="NHWC") for share in (0, 0.5))
        below = np.nextafter(np.float32(0.5), np.float32(0))  # 0.5 itself is left in the half
        self.calls = (
            ours(which, full, threads=1, skip=operand, threshold=float(below)),
            ours(which, half, threads=1, skip=operand),
        )

    def track_ratio(self, which, layer):
        with_threshold, exact = fastest_of_pairs(*self.calls, SECONDS)
        return with_threshold / exact

    track_ratio.unit = "with threshold / exact zeros"


class ReturnMask:
    """A forward pass with ReLU that returns the bit mask of its result, against the same without it."""

    version = "1"
    params = ("64,64,56 3x3", "64,256,56 1x1")
    param_names = ("layer",)

    def setup(self, layer):
        keep_memory()
        operands = random_operands(parse(layer), {"input": 0.8}, batch=16, layout="NHWC")
        self.calls = [
            ours("forward", operands, threads=1, activation="relu", return_mask=mask) for mask in (True, False)
        ]

    def track_ratio(self, layer):
        with_mask, without = fastest_of_pairs(*self.calls, SECONDS)
        return with_mask / without

    track_ratio.unit = "with mask / without"


class Call:
    """A convolution so small that the way to the kernel is all its time."""

    version = "1"
    params = PASSES
    param_names = ("pass",)

    def setup(self, which):
        operands = random_operands(parse("16,16,4 3x3"), {}, batch=1, layout="NHWC")
        self.call = ours(which, operands, threads=1)

    def time_call(self, which):
        self.call()


class Prepared:
    """The same forward pass, prepared once."""

    version = "1"

    def setup(self):
        operands = random_operands(parse("16,16,4 3x3"), {}, batch=1, layout="NHWC")
        self.arrays, self.out = (operands.x, operands.weight), np.empty((1, 4, 4, 16), np.float32)
        self.prepared = sparseconv.prepare("conv2d", *self.arrays, padding=1, layout="NHWC", num_threads=1)

    def time_call(self):
        self.prepared(*self.arrays, out=self.out)


class Import:
    """In a fresh process, NumPy included and without it."""

    version = "1"

    def timeraw_import(self):
        return "import sparseconv"

    def timeraw_import_after_numpy(self):
        return "import sparseconv", "import numpy"


class Memory:
    """Peak memory of a process that runs one pass: beside the arrays, packed weights and scratch."""

    version = "1"
    params = (PASSES, ("256,256,56 3x3", "512,512,7 3x3"))
    param_names = ("pass", "layer")

    def setup(self, which, layer):
        operands = random_operands(parse(layer), {"input": 0.5, "grad_output": 0.5}, batch=16, layout="NHWC")
        self.call = ours(which, operands, threads=1)

    def peakmem_pass(self, which, layer):
        np.asarray(self.call())
