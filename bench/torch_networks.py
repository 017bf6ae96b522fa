"""ResNet-50 and VGG16 for PyTorch, with random weights whose ReLUs give about as many zeros as trained ones do."""

import functools

import torch
from torch import nn

NETWORKS = ("resnet50", "vgg16")
ZEROS = 0.61  # of a ReLU's results: the mean over ResNet-50's layers and training on ImageNet (SparseTrain, 2020)
SHIFT = -0.3  # of what goes into a ReLU, in standard deviations: 62% of a normal distribution are below zero then


class Bottleneck(nn.Module):
    def __init__(self, inputs, channels, stride):
        super().__init__()
        outputs = 4 * channels
        self.conv1 = nn.Conv2d(inputs, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride > 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x):
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        y += x if self.downsample is None else self.downsample(x)
        return self.relu(y)


class ResNet50(nn.Module):
    def __init__(self, classes=1000):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        stages, inputs = [], 64
        for channels, blocks, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
            stage = []
            for block in range(blocks):
                stage.append(Bottleneck(inputs, channels, stride if block == 0 else 1))
                inputs = 4 * channels
            stages.append(nn.Sequential(*stage))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.fc = nn.Linear(2048, classes)

    def forward(self, x):
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean((2, 3)))


class VGG16(nn.Module):
    def __init__(self, classes=1000):
        super().__init__()
        layers, inputs = [], 3
        for channels, repeats in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
            for _ in range(repeats):
                layers += [nn.Conv2d(inputs, channels, 3, padding=1), nn.ReLU(inplace=True)]
                inputs = channels
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Flatten(), nn.Linear(512 * 49, 4096), nn.ReLU(inplace=True), nn.Linear(4096, 4096),
            nn.ReLU(inplace=True), nn.Linear(4096, classes),
        )  # fmt: skip

    def forward(self, x):
        return self.classifier(self.features(x))


def network(name, images, zeros=ZEROS, seed=0):
    """A network in channels_last memory, its statistics and biases taken from the images (N, 3, 224, 224).

    Batch normalisation has their means and variances, and a bias of about SHIFT. Since random features are no normal
    distributions, each layer's bias is moved until that share of its results is below zero. Where there is no batch
    normalisation, weights and biases of convolutions do what it would.
    """
    torch.manual_seed(seed)
    model = {"resnet50": ResNet50, "vgg16": VGG16}[name]().to(memory_format=torch.channels_last)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if isinstance(module, nn.BatchNorm2d | nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.constant_(module.bias, SHIFT if isinstance(module, nn.BatchNorm2d) else 0)
    kind = nn.BatchNorm2d if name == "resnet50" else nn.Conv2d
    hook = functools.partial(adjust, zeros)
    handles = [one.register_forward_hook(hook) for one in model.modules() if isinstance(one, kind)]
    with torch.no_grad():
        model.eval()(images)
    for handle in handles:
        handle.remove()
    return model.train()


def adjust(zeros, module, arguments, output):
    """Sets statistics and bias of a layer by its input, and returns its result with them."""
    x = arguments[0] if isinstance(module, nn.BatchNorm2d) else output
    variance, mean = torch.var_mean(x, (0, 2, 3))
    if isinstance(module, nn.BatchNorm2d):
        module.running_mean.copy_(mean)
        module.running_var.copy_(variance)
    else:
        module.weight.div_(variance.sqrt().view(-1, 1, 1, 1))
        module.bias.copy_(SHIFT - mean / variance.sqrt())
    result = module.forward(arguments[0])
    some = result.flatten()[:: max(1, result.numel() // 1_000_000)]
    move = torch.quantile(some, zeros)
    module.bias.sub_(move)
    return result.sub_(move)
