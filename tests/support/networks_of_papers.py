"""Networks whose figures papers print."""



# Every network of pruning/networks.py with each of its data sets.
NETWORKS = [
    *((name, data) for name in ("vgg16", "resnet18", "resnet34", "resnet50") for data in ("cifar10", "imagenet")),
    ("wrn_16_8", "cifar10"),
    ("wrn_50_2", "imagenet"),
    ("densenet121", "cifar10"),
    ("densenet121", "imagenet"),
]
