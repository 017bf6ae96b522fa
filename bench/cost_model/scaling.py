"""Extrapolated, not measured: training steps on many cores of a socket, and on many machines."""

import math
from collections.abc import Iterable

from sparseconv.benchmark.layers import NETWORKS, parse

from .calls import PASSES, work
from .errors import markdown
from .fitting import fitted, predict
from .processors import Processor

NOT_MEASURED = "extrapolated, not measured"
PARAMETERS = {"vgg16": 138_357_544, "resnet34": 21_797_672, "resnet50": 25_557_032}  # of ImageNet's networks
LATENCY = 30e-6  # of a message between machines: ASSUMED, as in docs/distributed.md
GBITS = (10, 25, 100)
MACHINES = 16  # of a cluster; 64 move 7% more
ZEROS = (0.0, 0.6, 0.9)


def step(name: str, zeros: float, cpu: Processor, threads: int, batch: int) -> tuple[dict[str, float], float]:
    """A training step of a network: the seconds of its convolutions but the first, and the share that memory bounds.

    The seconds are those of each pass. All convolutions meet as many zeros.
    """
    seconds, by_memory = dict.fromkeys(PASSES, 0.0), 0.0
    for text, count in NETWORKS[name].items():
        for which in PASSES:
            call = predict(work(parse(text), which, zeros, cpu, threads, batch), fitted(cpu), cpu)
            seconds[which] += count * call.seconds
            by_memory += count * call.seconds * (call.bound == "memory")
    return seconds, by_memory / sum(seconds.values())


def all_reduce(size: float, machines: int, bandwidth: float, latency: float = LATENCY) -> float:
    """Seconds of a ring all-reduce of so many bytes; `bandwidth` in bytes/s. docs/distributed.md has the formula."""
    return 2 * (machines - 1) * latency + 2 * (machines - 1) / machines * size / bandwidth


def network_table(name: str, cores: Iterable[int], cpu: Processor, batch: int) -> list[str]:
    """Steps on many cores of one socket."""
    rows = []
    for zeros in ZEROS:
        alone = sum(step(name, zeros, cpu, 1, batch)[0].values())
        for threads in cores:
            passes, by_memory = step(name, zeros, cpu, threads, batch)
            total = sum(passes.values())
            times = [f"{1e3 * seconds:.0f}" for seconds in (total, *passes.values())]
            rows.append([f"{zeros:.0%}", f"{threads}", *times, f"{alone / total:.1f}", f"{by_memory:.0%}"])
    head = ["zeros", "cores", "step, ms", *PASSES, "times one core", "bound by memory"]
    title = f"{name}, {cpu.name}, batch {batch}, convolutions alone, {NOT_MEASURED}:"
    return [title, "", *markdown(head, rows)]


def cluster_table(name: str, cores: Iterable[int], cpu: Processor, batch: int) -> list[str]:
    """Share of a step that is compute, and the images that a machine needs to hide its gradients behind backward."""
    size, rows = 4 * PARAMETERS[name], []
    moving = [all_reduce(size, MACHINES, gbit / 8 * 1e9) for gbit in GBITS]
    for threads in cores:
        for zeros in ZEROS:
            passes, _ = step(name, zeros, cpu, threads, batch)
            total = sum(passes.values())
            backward = total - passes["forward"]
            row = [f"{threads}", f"{zeros:.0%}", f"{1e3 * total:.0f}", f"{1e3 * backward:.0f}"]
            for seconds in moving:
                beside, after = total / (total + max(0, seconds - backward)), total / (total + seconds)
                row.append(f"{beside:.2f} to {after:.2f}; {math.ceil(batch * seconds / backward)}")
            rows.append(row)
    head = ["cores", "zeros", "step, ms", "of it backward", *(f"{gbit} Gbit/s" for gbit in GBITS)]
    times = ", ".join(f"{1e3 * seconds:.0f}" for seconds in moving)
    title = f"{name}, {MACHINES} machines, {batch} images each, {size / 1e6:.0f} MB of gradients ({times} ms)"
    return [f"{title}, {NOT_MEASURED}:", "", *markdown(head, rows)]
