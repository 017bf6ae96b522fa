"""What is there beside the arithmetic: masks, compressed arrays, the way into a call, the import, memory."""

import numpy as np

import sparseconv
from sparseconv.benchmark.layers import parse
from sparseconv.benchmark.operands import PASSES, random_operands
from sparseconv.benchmark.peers import ours


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
