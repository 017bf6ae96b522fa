#!/usr/bin/env bash
# PyTorch leaves oneDNN for 1x1 convolutions on one thread, unless the batch has 16 images or more.
#
# Versions  torch 2.13.0 (CPU), numpy 2.4.6, Python 3.11 or newer, Linux x86-64.
# Guessed   With oneDNN enabled, which kernel computes a float32 convolution depends on the layer, not on how many threads
#           there are and how many images come at a time.
# Seen      A 1x1 layer of stride 1 runs as a matrix product of PyTorch's own (_slow_conv2d_forward) on one thread with
#           15 images, and in oneDNN with 16 images, with two threads, with stride 2, or with a 3x3 kernel. channels_last
#           makes no difference.
# Matters   A comparison "with oneDNN" on one thread and batch 8 is one with another kernel in most layers of a ResNet-50.
#           On a Zen 5 core that kernel took two to three times as long as oneDNN, so a whole network seems to gain from
#           whatever replaces it. torch.ops.aten.mkldnn_convolution calls oneDNN in any case.
# Date      2026-11-29
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" - 2>/dev/null <<'PYTHON'
import sys

import torch
from torch.profiler import profile


def by_onednn(kernel, stride, batch, threads, memory_format):
    torch.set_num_threads(threads)
    x = torch.randn(batch, 64, 14, 14).to(memory_format=memory_format)
    conv = torch.nn.Conv2d(64, 64, kernel, stride, kernel // 2).to(memory_format=memory_format)
    with torch.no_grad(), profile() as record:
        conv(x)
    return "aten::mkldnn_convolution" in {event.key for event in record.key_averages()}


cases = [(1, 1, 15, 1), (1, 1, 16, 1), (1, 1, 15, 2), (1, 2, 15, 1), (3, 1, 15, 1)]
seen = {}
for memory_format in (torch.contiguous_format, torch.channels_last):
    for case in cases:
        seen[case, memory_format] = used = by_onednn(*case, memory_format)
        kernel, stride, batch, threads = case
        words = f"{kernel}x{kernel}, stride {stride}, {batch} images, {threads} thread(s), {memory_format}"
        print(f"{words}: {'oneDNN' if used else 'a matrix product'}")
sys.exit(0 if all(used == (case != cases[0]) for (case, _), used in seen.items()) else 1)
PYTHON
