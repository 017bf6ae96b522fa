"""Threads: what a second one brings on ResNet-50's layers; a call in turn with an operator of PyTorch."""

import time
from math import inf

from sparseconv import cpu
from sparseconv.benchmark.layers import NETWORKS, parse
from sparseconv.benchmark.measure import fastest_of_pairs, keep_memory
from sparseconv.benchmark.operands import PASSES, random_operands
from sparseconv.benchmark.peers import default_peer, ours

# As in the other modules: results are kept under these values.
TEAMS = ("own", "openmp")
OPERATORS = ("relu", "batch_norm")
LAYERS = tuple(NETWORKS["resnet50"])
SPARSITY = 0.6  # of the input, and of the mask of what backward_data needs: a network with batch normalisation
BATCH = 8
SECONDS = 0.5  # for the pairs of a layer
ROUNDS, CALLS = 15, 20  # of the alternation


def use_team(team, threads):
    """Choose the threads that compute; PyTorch, if there is one, keeps its usual way of waiting."""
    if threads > cpu.num_threads():
        raise NotImplementedError(f"this machine has fewer than {threads} CPUs")
    if team == "openmp":
        if default_peer() != "torch":
            raise NotImplementedError("torch is not installed")
        import torch

        torch.set_num_threads(threads)
    return cpu.use_threads(team)


class SecondThread:
    """Time of two threads over that of one, all layers as often as ResNet-50 has them, without its first one."""

    version = "1"
    timeout = 300
    params = (TEAMS, PASSES)
    param_names = ("team", "pass")

    def setup(self, team, which):
        keep_memory()
        self.used = use_team(team, 2)

    def teardown(self, team, which):
        self.used.__exit__(None, None, None)

    def times(self, which, text):
        """Of one layer with one thread and with two."""
        operands = random_operands(parse(text), {"input": SPARSITY}, batch=BATCH, layout="NHWC")
        options = {"mask": "float"} if which == "backward_data" else {}
        return fastest_of_pairs(*(ours(which, operands, threads=count, **options) for count in (1, 2)), SECONDS)

    def track_ratio(self, team, which):
        one = two = 0.0
        for text in LAYERS:
            first, second = self.times(which, text)
            one += NETWORKS["resnet50"][text] * first
            two += NETWORKS["resnet50"][text] * second
        return two / one

    track_ratio.unit = "two threads / one"


class BesideTorch:
    """A convolution in turn with an operator of PyTorch, both on two threads, over the sum of both alone."""

    version = "1"
    timeout = 120
    params = (TEAMS, OPERATORS)
    param_names = ("team", "operator")

    def setup(self, team, operator):
        if default_peer() != "torch":
            raise NotImplementedError("torch is not installed")
        import torch

        keep_memory()
        self.used = use_team(team, 2)
        torch.set_num_threads(2)
        operands = random_operands(parse("64,64,56 3x3"), {"input": SPARSITY}, batch=BATCH, layout="NHWC")
        self.convolution = ours("forward", operands, threads=2)
        images = torch.randn(BATCH, 64, 56, 56).contiguous(memory_format=torch.channels_last)
        statistics = torch.zeros(64), torch.ones(64)
        operators = {
            "relu": lambda: torch.relu(images),
            "batch_norm": lambda: torch.nn.functional.batch_norm(images, *statistics, training=True),
        }
        self.operator = operators[operator]

    def teardown(self, team, operator):
        self.used.__exit__(None, None, None)

    def times(self):
        """Of the convolution alone, the operator alone, and both in turn, each the fastest of the rounds."""
        sides = (self.convolution,), (self.operator,), (self.convolution, self.operator)
        fastest = [inf] * len(sides)
        for _ in range(ROUNDS):
            for index, calls in enumerate(sides):
                start = time.perf_counter()
                for _ in range(CALLS):
                    for call in calls:
                        call()
                fastest[index] = min(fastest[index], (time.perf_counter() - start) / CALLS)
        return fastest

    def track_ratio(self, team, operator):
        convolution, other, both = self.times()
        return both / (convolution + other)

    track_ratio.unit = "in turn / sum of both alone"
