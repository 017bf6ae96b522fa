"""Train a small ResNet on Fashion-MNIST and run it, with sparseconv in the place of PyTorch's convolutions.

    python examples/convert_resnet.py [STEPS]
"""

import sys

import torch
from torch import nn
from torch.nn.functional import cross_entropy

import sparseconv.data
import sparseconv.torch


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride) if stride > 1 else nn.Identity()

    def forward(self, x):
        y = self.bn1(self.conv1(x)).relu()
        return (self.bn2(self.conv2(y)) + self.shortcut(x)).relu()


def main(steps=40, batch=32):
    torch.manual_seed(0)
    images, labels, *_ = (torch.from_numpy(array) for array in sparseconv.data.load())
    images = images.float().view(-1, 1, 28, 28) / 255
    body = [nn.Conv2d(1, 32, 3, 1, 1), nn.ReLU(), Block(32, 32, 1), Block(32, 64, 2), Block(64, 128, 2)]
    model = nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10))
    model = model.to(memory_format=torch.channels_last)
    optimiser = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)

    def loss(model, start=0):
        x = images[start : start + batch].to(memory_format=torch.channels_last)
        return cross_entropy(model(x), labels[start : start + batch].long())

    for step in range(steps):
        if step == steps // 2:  # by then activations are as sparse as they are going to be
            print(sparseconv.torch.convert_(model, loss))
        optimiser.zero_grad()
        value = loss(model, step * batch % len(images))
        value.backward()
        optimiser.step()
    print(f"loss after {steps} steps: {value.item():.3f}\n")

    model.eval()
    print(sparseconv.torch.convert_(model, images[:batch].to(memory_format=torch.channels_last), fold=True))
    with torch.no_grad():
        right = model(images[-500:]).argmax(1) == labels[-500:]
    print(f"{right.float().mean():.0%} of 500 images right")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
