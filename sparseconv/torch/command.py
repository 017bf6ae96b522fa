"""``sparseconv torch-report``: what sparseconv would gain in a model, layer by layer."""

from __future__ import annotations

import argparse
import importlib
import json
import re
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from .conversion import Config, convert_, sparsity_report
from .exported import with_layers

__all__ = ["main"]


def main(arguments: argparse.Namespace) -> None:
    """Runs the command; wrong input is a ValueError or an OSError."""
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    model = load_model(arguments.model, arguments.train)
    if arguments.channels_last:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # its stub lacks the word
    sample = tuple(load_sample(text, arguments.channels_last) for text in arguments.sample)
    config = Config(backward=arguments.train, seconds=arguments.seconds)
    try:
        if arguments.train or not arguments.fold:
            report = sparsity_report(model, sample, config=config)
        else:
            report = convert_(model, sample, config=config, fold=True)
    except TypeError as error:
        raise ValueError(str(error)) from error
    print(json.dumps(report.to_dict(), indent=2) if arguments.json else report)


def load_model(text: str, train: bool) -> nn.Module:
    """An exported program (.pt2), or what ``module:function`` names: a model, or a function that returns one."""
    if text.endswith(".pt2"):
        if not Path(text).is_file():
            raise FileNotFoundError(f"MODEL: got {text}, which is no file")
        return with_layers(torch.export.load(text).module())
    module, colon, name = text.partition(":")
    if not colon or not name:
        raise ValueError(f"MODEL: got {text!r}, expected a file that ends with .pt2, or module:function")
    sys.path.insert(0, "")  # as `python -m` does
    try:
        found = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"MODEL: got {text!r}, which cannot be imported: {error}") from error
    finally:
        sys.path.remove("")
    model = found() if callable(found) and not isinstance(found, nn.Module) else found
    if not isinstance(model, nn.Module):
        raise ValueError(f"MODEL: got {text!r}, which gives {type(model).__name__}, expected a torch.nn.Module")
    return model.train(train)


def load_sample(text: str, channels_last: bool) -> Tensor:
    """Random numbers of a shape (8x3x224x224), or an array from a file (.npy, .pt)."""
    if re.fullmatch(r"\d+([x,]\d+)*", text):
        sizes = [int(size) for size in re.split("[x,]", text)]
        tensor = torch.randn(sizes, generator=torch.Generator().manual_seed(0))
    elif text.endswith(".npy"):
        try:  # mapped: a header that says more than the file has would else be believed
            tensor = torch.from_numpy(np.array(np.load(text, mmap_mode="r", allow_pickle=False)))
        except (ValueError, TypeError, EOFError) as error:
            raise ValueError(f"--sample: got {text}, expected an array of numbers: {error}") from error
    elif text.endswith(".pt"):
        tensor = torch.load(text, weights_only=True)
    else:
        raise ValueError(f"--sample: got {text!r}, expected a shape as 8x3x224x224, or a file .npy or .pt")
    if not isinstance(tensor, Tensor):
        raise ValueError(f"--sample: got {type(tensor).__name__} in {text}, expected a tensor")
    return tensor.to(memory_format=torch.channels_last) if channels_last and tensor.dim() == 4 else tensor
