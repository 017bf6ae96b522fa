"""How a training step of a converted model scales with workers: measured on two processes, computed beyond.

    python -m bench.distributed --network resnet50 --batch 4

Four things are measured: a step in one process on one thread, alone and with another process beside it, all-reduce over
gloo between two processes of this machine, and a step of DistributedDataParallel in these two. The model has two
constants, latency and bandwidth, fitted to the all-reduces of two workers. A ring all-reduce of G bytes over w workers
then takes

    t(w) = 2 (w - 1) latency + 2 (w - 1) / w G / bandwidth

and a step takes between compute + max(0, t - backward), where a free core moves the gradients while backward runs, and
compute + t, where none is free. docs/distributed.md has the results.
"""

import argparse
import json
import os
import socket
import statistics
import time

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import sparseconv.torch as sct

from . import torch_networks
from .cost_model.scaling import all_reduce

SIZES = [2**power for power in range(12, 27, 2)]  # bytes
WORKERS = (2, 4, 8, 16, 32, 64)
NETWORKS_GBIT = (10, 25, 100)


def times_of(step, count):
    """Median of some calls, after two that are not counted."""
    taken = []
    for i in range(count + 2):
        start = time.perf_counter()
        step()
        if i >= 2:
            taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def prepare(options, convert):
    """A model, and functions that do a step and its backward pass alone."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    x = torch.randn(options.batch, 3, 224, 224).to(memory_format=torch.channels_last)
    model = torch_networks.network(options.network, x)
    labels = torch.zeros(options.batch, dtype=torch.long)
    if convert:
        sct.convert_(model)
    return model, x, labels


def stepper(model, x, labels):
    optimizer = torch.optim.SGD(model.parameters(), 1e-6)

    def step():
        loss = nn.functional.cross_entropy(model(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def backward_seconds(model, x, labels, count):
    taken = []
    for _ in range(count):
        loss = nn.functional.cross_entropy(model(x), labels)
        start = time.perf_counter()
        loss.backward()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def worker(rank, port, options, path):
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=2)
    result = {"all_reduce": []}
    for size in SIZES:
        data = torch.ones(size // 4)
        dist.barrier()
        result["all_reduce"].append([size, times_of(lambda data=data: dist.all_reduce(data), 15)])
    for kind in ("torch", "sparseconv"):
        model, x, labels = prepare(options, kind == "sparseconv")
        dist.barrier()
        result[f"{kind}_beside"] = times_of(stepper(model, x, labels), options.steps)
        dist.barrier()
        result[f"{kind}_step"] = times_of(stepper(DistributedDataParallel(model), x, labels), options.steps)
    if rank == 0:
        with open(path, "w", encoding="utf-8") as file:
            json.dump(result, file)
    dist.destroy_process_group()


def fitted(measured):
    """(latency in s, bandwidth in bytes/s) of two workers; each size counts alike in relative error."""
    sizes, taken = np.array(measured).T
    matrix = np.stack([2 / taken, sizes / taken], 1)
    (latency, per_byte), *_ = np.linalg.lstsq(matrix, np.ones_like(taken), rcond=None)
    return float(latency), float(1 / per_byte)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", choices=torch_networks.NETWORKS, default="resnet50")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--json", default="distributed.json")
    options = parser.parse_args()

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    alone = {}
    for kind in ("torch", "sparseconv"):
        model, x, labels = prepare(options, kind == "sparseconv")
        alone[kind] = times_of(stepper(model, x, labels), options.steps), backward_seconds(model, x, labels, 3)
    gradient = sum(one.numel() * 4 for one in model.parameters())
    mp.spawn(worker, (port, options, options.json), nprocs=2)
    with open(options.json, encoding="utf-8") as file:
        together = json.load(file)
    latency, bandwidth = fitted(together["all_reduce"])
    print(f"{options.network}, batch {options.batch} a worker, {gradient / 1e6:.0f} MB of gradients")
    print(f"all-reduce of two: latency {latency * 1e6:.0f} us, {bandwidth / 1e9:.2f} GB/s")
    for size, taken in together["all_reduce"]:
        model = all_reduce(size, 2, bandwidth, latency)
        print(f"  {size / 2**20:8.3f} MB  {taken * 1e3:8.3f} ms  model {model * 1e3:8.3f}")
    moved = all_reduce(gradient, 2, bandwidth, latency)
    for kind, (step, backward) in alone.items():
        beside, real = together[f"{kind}_beside"], together[f"{kind}_step"]
        low, high = beside + max(0, moved - backward), beside + moved
        print(f"{kind}: one worker {step * 1e3:.0f} ms (backward {backward * 1e3:.0f}), with another beside it", end="")
        print(f" {beside * 1e3:.0f}, two workers {real * 1e3:.0f}, computed {low * 1e3:.0f} to {high * 1e3:.0f}")
    print("computed: compute / step for torch and sparseconv, gradients moved by a free core - by none")
    for gbit in NETWORKS_GBIT:
        for workers in WORKERS:
            taken = all_reduce(gradient, workers, gbit / 8 * 1e9)
            shares = [
                f"{step / (step + max(0, taken - backward)):.2f} - {step / (step + taken):.2f}"
                for step, backward in alone.values()
            ]
            print(f"  {gbit:4d} Gbit/s  {workers:3d} workers  " + "   ".join(shares))
    together |= {"alone": alone, "gradient_bytes": gradient, "latency": latency, "bandwidth": bandwidth}
    with open(options.json, "w", encoding="utf-8") as file:
        json.dump(together, file, indent=1)


if __name__ == "__main__":
    main()
