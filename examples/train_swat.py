"""Train a network with sparse weights and activations (SWAT), and keep a pruned model that runs faster.

    pip install '.[torch]' && python examples/train_swat.py [STEPS]
"""

import sys

import torch
from torch import nn
from torch.nn.functional import cross_entropy

import sparseconv.data
import sparseconv.torch as sct
from sparseconv.pruning import SWAT, topk_mask


def network():
    layers = []
    for channels_in, channels, stride in ((1, 32, 1), (32, 64, 2), (64, 64, 1), (64, 128, 2)):
        layers += [nn.Conv2d(channels_in, channels, 3, stride, 1), nn.ReLU()]
        nn.init.kaiming_normal_(layers[-2].weight)  # of torch's smaller weights a fifth is too little to begin with
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10))


def main(steps=150, batch=32, sparsity=0.8):
    torch.manual_seed(0)
    images, labels, test_images, test_labels = (torch.from_numpy(one) for one in sparseconv.data.load())
    images, test_images = (
        (one[:, None] / 255).to(memory_format=torch.channels_last) for one in (images, test_images)
    )
    model = network().to(memory_format=torch.channels_last)
    names = sct.attach(model, SWAT(sparsity, dense=["0"]))  # the first layer sees no zeros
    print(f"layers under SWAT: {', '.join(names)}")

    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    for step in range(steps):
        chosen = torch.arange(step * batch, (step + 1) * batch) % len(images)
        loss = cross_entropy(model(images[chosen]), labels[chosen].long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 50 == 0:
            print(f"step {step}: loss {loss.item():.3f}")

    # What forward has used all along: the largest weights. Now the others go for good, and their zeros are skipped.
    sct.detach(model)
    for name, module in model.named_modules():
        if name in names and name != "0":
            module.weight.data.mul_(torch.from_numpy(topk_mask(module.weight.detach(), sparsity)))
    print(sct.convert_(model.eval(), test_images[:batch], fold=True))
    with torch.no_grad():
        right = (model(test_images).argmax(1) == test_labels).float().mean()
    print(f"test accuracy of the pruned model {right:.3f}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
