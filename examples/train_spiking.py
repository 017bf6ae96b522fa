"""A spiking network (snnTorch) on Fashion-MNIST: convert it, train it, and see how few spikes its layers get.

    pip install '.[torch]' snntorch && python examples/train_spiking.py [STEPS]
"""

import sys

import snntorch
import torch
from torch import nn
from torch.nn.functional import cross_entropy, max_pool2d

import sparseconv.data
import sparseconv.torch as sct


class Spiking(nn.Module):
    """Two layers of leaky neurons over some time steps; scores are sums over time."""

    def __init__(self, time=6):
        super().__init__()
        self.time = time
        self.conv1, self.conv2 = nn.Conv2d(1, 32, 5, padding=2), nn.Conv2d(32, 64, 3, padding=1)
        self.neurons1, self.neurons2 = snntorch.Leaky(beta=0.9), snntorch.Leaky(beta=0.9)
        self.scores = nn.Linear(64 * 7 * 7, 10)

    def forward(self, x):
        mem1, mem2, scores = self.neurons1.init_leaky(), self.neurons2.init_leaky(), 0
        for _ in range(self.time):
            spikes, mem1 = self.neurons1(self.conv1(x), mem1)
            spikes, mem2 = self.neurons2(self.conv2(max_pool2d(spikes, 2)), mem2)
            scores = scores + self.scores(max_pool2d(spikes, 2).flatten(1))
        return scores


def main(steps=60, batch=32):
    torch.manual_seed(0)
    images, labels, test_images, test_labels = (torch.from_numpy(one) for one in sparseconv.data.load())
    images, test_images = ((one[:, None] / 255).to(memory_format=torch.channels_last) for one in (images, test_images))
    model = Spiking().to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    for step in range(steps):
        chosen = torch.arange(step * batch, (step + 1) * batch) % len(images)
        loss = cross_entropy(model(images[chosen]), labels[chosen].long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step == steps // 2:  # the report shows zeros and times by layer, ours and PyTorch's
            print(sct.convert_(model, images[chosen]))
    with torch.no_grad():
        right = model(test_images[:500]).argmax(1) == test_labels[:500]
    print(f"test accuracy {right.float().mean():.3f}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
