"""DistributedDataParallel over gloo: two processes with a converted model against torch's own, and against one."""

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("torch")

WORKER = '''
import json, os, warnings
import torch, torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
import sparseconv.torch as sct

warnings.simplefilter("error")
dist.init_process_group("gloo")
torch.set_num_threads(1)
rank, workers = dist.get_rank(), dist.get_world_size()


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 1), nn.BatchNorm2d(64), nn.ReLU(),
        nn.Conv2d(64, 64, 3, stride=2, groups=4), nn.ReLU(), nn.ConvTranspose2d(64, 8, 1), nn.ReLU(),
        nn.Conv2d(8, 16, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5),
    )


def train(convert, channels_last, steps):
    model = network()
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
    if convert:
        assert all(layer.converted for layer in sct.convert_(model).layers)
    for module in model.modules():  # statistics of the joint batch are another matter
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    ddp = DistributedDataParallel(model) if workers > 1 else model
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    rng = torch.Generator().manual_seed(1)
    losses, first = [], None
    for step in range(steps):
        x, labels = torch.randn(8, 1, 9, 9, generator=rng), torch.randint(5, (8,), generator=rng)
        if channels_last:
            x = x.to(memory_format=torch.channels_last)
        loss = nn.functional.cross_entropy(ddp(x[rank::workers]), labels[rank::workers])
        optimizer.zero_grad()
        loss.backward()
        if first is None:
            first = [one.grad.clone() for one in model.parameters()]
            strides = [one.grad.stride() == one.stride() for one in model.parameters()]
            assert all(strides), strides
        optimizer.step()
        joint = loss.detach().clone()
        if workers > 1:
            dist.all_reduce(joint)
        losses.append(float(joint) / workers)
    return first, losses


for channels_last in (False, True):
    ours, our_losses = train(True, channels_last, 12)
    theirs, their_losses = train(False, channels_last, 12)
    for one, other in zip(ours, theirs):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6 + 1e-5 * float(other.abs().max()))
        assert float((other != 0).float().mean()) > 0.3
    torch.testing.assert_close(torch.tensor(our_losses), torch.tensor(their_losses), rtol=1e-4, atol=1e-5)
if rank == 0:
    print(json.dumps(our_losses))
dist.destroy_process_group()
'''


def run(tmp_path, processes):
    path = tmp_path / "worker.py"
    path.write_text(WORKER, encoding="utf-8")
    command, environment = [sys.executable, path], os.environ | {"OMP_NUM_THREADS": "1"}
    if processes > 1:
        command[1:1] = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    else:  # without the launcher, which imports torch as well
        environment |= {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "0"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "stride" not in done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_two_processes_are_torchs_two_and_one_with_the_joint_batch(tmp_path):
    together, alone = run(tmp_path, 2), run(tmp_path, 1)
    assert together == pytest.approx(alone, rel=1e-4)
    assert together[-1] != together[0]
