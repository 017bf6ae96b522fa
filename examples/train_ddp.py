"""Two processes train one model: a converted network under DistributedDataParallel, over gloo.

    pip install '.[torch]' && torchrun --standalone --nproc-per-node 2 examples/train_ddp.py
"""

import sys

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import sparseconv.data
import sparseconv.torch as sct


def network():
    torch.manual_seed(0)  # the same weights everywhere
    layers = []
    for channels_in, channels, stride in ((1, 32, 1), (32, 64, 2), (64, 64, 1), (64, 128, 2)):
        layers += [nn.Conv2d(channels_in, channels, 3, stride, 1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10))


def main(steps=100, batch=64):
    dist.init_process_group("gloo")
    rank, workers = dist.get_rank(), dist.get_world_size()
    torch.set_num_threads(1)  # the cores are shared by the processes
    images, labels, *_ = (torch.from_numpy(np.array(one)) for one in sparseconv.data.load())
    images = (images[:, None] / 255).to(memory_format=torch.channels_last)
    labels = labels.long()

    model = network().to(memory_format=torch.channels_last)
    sct.convert_(model)  # every layer; convert_(model, sample) measures, and may decide differently in each process
    model = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    for step in range(steps):
        joint = torch.arange(step * batch, (step + 1) * batch) % len(images)
        mine = joint[rank::workers]
        loss = nn.functional.cross_entropy(model(images[mine]), labels[mine])
        optimizer.zero_grad()
        loss.backward()  # gradients are averaged over the processes while backward runs
        optimizer.step()
        mean = loss.detach().clone()
        dist.all_reduce(mean)
        if rank == 0 and (step % 20 == 0 or step == steps - 1):
            print(f"step {step}: loss {mean / workers:.4f}", flush=True)
    del model  # in front of the process group: else PyTorch 2.13.0 may wait for ever, see docs/distributed.md
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
