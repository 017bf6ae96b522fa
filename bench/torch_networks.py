"""Networks of the field for PyTorch, with random weights whose ReLUs give as many zeros as trained ones do.

VGG16, ResNet-34, ResNet-50, and a ResNet-50 without normalisation in the manner of Fixup (Zhang et al., 2019): branches
are scaled, and convolutions have biases. Fixup's own scalar biases in front of convolutions are left out, since x + b
has no zeros.
"""

import functools
import itertools

import torch
from torch import nn

ZEROS = 0.61  # of a ReLU's results: the mean over ResNet-50's layers and training on ImageNet (SparseTrain, 2020)
# The same for each ReLU in the order of the layers: means over the epochs that SparseTrain's authors published.
RESNET50 = (
    .22, .49, .40, .49, .48, .48, .34, .54, .54, .39, .65, .44, .51, .51, .61, .47, .55, .67, .54, .66, .77, .54, .71,
    .42, .56, .56, .72, .52, .69, .74, .55, .74, .78, .57, .77, .77, .60, .75, .77, .64, .80, .60, .74, .76, .83, .83,
    .82, .74, .86,
)  # fmt: skip
PROFILES = {
    "vgg16": (.49, .76, .74, .84, .77, .79, .88, .82, .86, .93, .80, .80, .91, .76, .75),
    "resnet34": (
        .18, .48, .15, .51, .18, .69, .19, .63, .43, .78, .41, .86, .43, .88, .45, .67, .52, .85, .46, .89, .43, .90,
        .44, .88, .50, .87, .58, .80, .77, .87, .80, .83, .81,
    ),
    "resnet50": RESNET50,
    "fixup50": RESNET50,  # of Fixup none was published
}  # fmt: skip
NETWORKS = tuple(PROFILES)
POOLED = (.59, .67, .77, .84, .84)  # of VGG16's pooled maps, by the same authors  # fmt: skip
SMOOTH = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 1.0)  # shares of one smooth kernel in weights that are tried for them


def convolution(inputs, outputs, kernel, stride=1, *, norm):
    """A convolution and the module whose bias moves its results: batch normalisation, or itself."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=not norm)
    return conv, nn.BatchNorm2d(outputs) if norm else nn.Identity()


class Block(nn.Module):
    """A residual block: a branch of `layers` (channels, kernel, stride), each with a ReLU, the last after the sum."""

    def __init__(self, inputs, layers, norm):
        super().__init__()
        stride = max(stride for _, _, stride in layers)
        outputs = layers[-1][0]
        self.downsample = None
        if stride > 1 or inputs != outputs:
            self.downsample = nn.Sequential(*convolution(inputs, outputs, 1, stride, norm=norm))
        self.convs, self.norms, self.relus = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for channels, kernel, stride in layers:
            conv, bn = convolution(inputs, channels, kernel, stride, norm=norm)
            self.convs.append(conv)
            self.norms.append(bn)
            self.relus.append(nn.ReLU(inplace=True))
            inputs = channels
        self.scale = None if norm else nn.Parameter(torch.ones(()))

    def forward(self, x):
        y = x
        for conv, norm, relu in zip(self.convs[:-1], self.norms[:-1], self.relus[:-1], strict=True):
            y = relu(norm(conv(y)))
        y = self.norms[-1](self.convs[-1](y))
        if self.scale is not None:
            y = y * self.scale
        y += x if self.downsample is None else self.downsample(x)
        return self.relus[-1](y)

    def movers(self):
        """(ReLU, the module whose bias moves what goes into it), in their order."""
        layers = zip(self.relus, self.convs, self.norms, strict=True)
        return [(relu, conv if isinstance(norm, nn.Identity) else norm) for relu, conv, norm in layers]


def basic(channels, stride):
    return (channels, 3, stride), (channels, 3, 1)


def bottleneck(channels, stride):
    return (channels, 1, 1), (channels, 3, stride), (4 * channels, 1, 1)


class ResNet(nn.Module):
    def __init__(self, block, blocks, norm=True, classes=1000):
        super().__init__()
        self.conv, self.norm = convolution(3, 64, 7, 2, norm=norm)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        stages, inputs = [], 64
        for channels, stride, count in zip((64, 128, 256, 512), (1, 2, 2, 2), blocks, strict=True):
            stage = []
            for index in range(count):
                layers = block(channels, stride if index == 0 else 1)
                stage.append(Block(inputs, layers, norm))
                inputs = layers[-1][0]
            stages.append(nn.Sequential(*stage))
        self.stages = nn.Sequential(*stages)
        self.fc = nn.Linear(inputs, classes)

    def forward(self, x):
        x = self.maxpool(self.relu(self.norm(self.conv(x))))
        return self.fc(self.stages(x).mean((2, 3)))

    def movers(self):
        first = self.conv if isinstance(self.norm, nn.Identity) else self.norm
        return [(self.relu, first), *(mover for stage in self.stages for block in stage for mover in block.movers())]


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

    def movers(self):
        layers = [*self.features, *self.classifier]
        return [(one, before) for before, one in itertools.pairwise(layers) if isinstance(one, nn.ReLU)]


MAKE = {
    "vgg16": VGG16,
    "resnet34": lambda: ResNet(basic, (3, 4, 6, 3)),
    "resnet50": lambda: ResNet(bottleneck, (3, 4, 6, 3)),
    "fixup50": lambda: ResNet(bottleneck, (3, 4, 6, 3), norm=False),
}


def network(name, images, zeros=ZEROS, seed=0):
    """A network in channels_last memory, its statistics and biases taken from the images (N, 3, 224, 224).

    `zeros` is the share of every ReLU's results, or "profile" for the shares of trained networks, layer by layer.
    Batch normalisation has the images' means and variances; where there is none, weights and biases of convolutions do
    what it would. Then biases are moved until that share of what goes into the ReLU is below zero.

    Zeros of trained networks cluster, so pooled maps of VGG16 have nearly as many; those of random weights are all
    gone. With "profile" its layers in front of a pooling have kernels that are smooth in part, for the zeros of POOLED.
    """
    torch.manual_seed(seed)
    model = MAKE[name]().to(memory_format=torch.channels_last)
    profile = PROFILES[name] if zeros == "profile" else (zeros,) * len(PROFILES[name])
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    handles = [
        relu.register_forward_pre_hook(functools.partial(move, mover, share))
        for (relu, mover), share in zip(model.movers(), profile, strict=True)
    ]
    kinds = nn.BatchNorm2d if any(isinstance(one, nn.BatchNorm2d) for one in model.modules()) else nn.Conv2d
    handles += [one.register_forward_hook(normalise) for one in model.modules() if isinstance(one, kinds)]
    if name == "vgg16" and zeros == "profile":
        layers = list(model.features)
        pools = [index for index, one in enumerate(layers) if isinstance(one, nn.MaxPool2d)]
        shares = dict(zip((index - 1 for index in pools), POOLED, strict=True))
        own = {relu: share for (relu, _), share in zip(model.movers(), profile, strict=True)}
        for index, pooled in shares.items():
            hook = functools.partial(smoothen, own[layers[index]], pooled)
            handles.append(layers[index - 1].register_forward_pre_hook(hook))
    with torch.no_grad():
        model.eval()(images)
    for handle in handles:
        handle.remove()
    return model.train()


def normalise(module, arguments, output):
    """Sets statistics, or weights and bias, of a layer by its input, and returns its result with them."""
    x = arguments[0] if isinstance(module, nn.BatchNorm2d) else output
    variance, mean = torch.var_mean(x, (0, 2, 3))
    if isinstance(module, nn.BatchNorm2d):
        module.running_mean.copy_(mean)
        module.running_var.copy_(variance)
    else:
        module.weight.div_(variance.sqrt().view(-1, 1, 1, 1))
        module.bias.copy_(-mean / variance.sqrt())
    return module.forward(arguments[0])


def move(mover, share, relu, arguments):
    """Moves the bias in front of a ReLU until this share of its results is zero; returns its input with that."""
    (x,) = arguments
    distance = quantile(x, share)
    mover.bias.sub_(distance)
    return x - distance


def smoothen(share, pooled, conv, arguments):
    """Mixes a smooth kernel into weights, as much as gives pooled maps the zeros wanted, at `share` before."""
    smooth = conv.weight.mean((2, 3), keepdim=True).expand_as(conv.weight) * 3  # of the same variance
    random, found = conv.weight.clone(), []
    for mix in SMOOTH:
        y = nn.functional.conv2d(arguments[0], (1 - mix) * random + mix * smooth, padding=conv.padding)
        variance, mean = torch.var_mean(y, (0, 2, 3), keepdim=True)
        y = nn.functional.max_pool2d((y - mean) / variance.sqrt() - quantile((y - mean) / variance.sqrt(), share), 2)
        found.append((abs((y <= 0).float().mean().item() - pooled), mix))
    mix = min(found)[1]
    conv.weight.copy_((1 - mix) * random + mix * smooth)


def quantile(x, share):
    """Of a million elements at most, since torch.quantile takes no more than 16 million."""
    return torch.quantile(x.flatten()[:: max(1, x.numel() // 1_000_000)], share)
