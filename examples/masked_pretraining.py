"""Masked pre-training: a network draws the masked blocks of images, which its encoder skips as zeros.

    pip install '.[torch]' && python examples/masked_pretraining.py [STEPS]
"""

import sys

import torch
from torch import nn
from torch.nn.functional import interpolate

import sparseconv.data
import sparseconv.torch as sct


class Masked(nn.Module):
    def __init__(self):
        super().__init__()
        sizes = ((1, 32, 1), (32, 64, 2), (64, 64, 1), (64, 128, 2), (128, 128, 1))
        self.encoder = nn.ModuleList(nn.Conv2d(c, k, 3, stride, 1) for c, k, stride in sizes)
        self.unseen = nn.Parameter(torch.zeros(128, 1, 1))  # what the decoder gets for a masked block
        self.decoder = nn.Sequential(nn.Conv2d(128, 128, 3, 1, 1), nn.ReLU(), nn.Conv2d(128, 16, 1), nn.PixelShuffle(4))

    def forward(self, x, seen):
        x = x * interpolate(seen, x.shape[2:])
        for layer in self.encoder:
            x = layer(x).relu()
            x = x * interpolate(seen, x.shape[2:])  # else bias and neighbours would fill the masked blocks again
        return self.decoder(torch.where(seen > 0, x, self.unseen))


def loss(model, images):
    """Mean square error of the masked pixels; in each image 60% of the 7 x 7 blocks of 4 x 4 pixels are masked."""
    order = torch.rand(len(images), 49).argsort(1)
    seen = (order >= round(0.6 * 49)).float().view(-1, 1, 7, 7)
    masked = interpolate(1 - seen, images.shape[2:])
    return ((model(images, seen) - images).square() * masked).sum() / masked.sum()


def main(steps=400, batch=64):
    torch.manual_seed(0)
    images, test_images = (torch.from_numpy(array)[:, None] / 255 for array in sparseconv.data.load()[::2])
    model = Masked().to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for step in range(steps):
        if step == steps // 2:  # the report shows zeros and times by layer, ours and PyTorch's
            print(sct.convert_(model, lambda model: loss(model, images[:batch])))
        optimizer.zero_grad()
        value = loss(model, images[torch.arange(step * batch, (step + 1) * batch) % len(images)])
        value.backward()
        optimizer.step()
        if step % 40 == 0 or step == steps - 1:
            print(f"step {step}: loss {value.item():.4f}")
    with torch.no_grad():
        drawn, guess = loss(model, test_images), loss(lambda x, seen: images.mean(0), test_images)
    print(f"masked blocks of test images: error {drawn:.4f}, that of the mean image {guess:.4f}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
