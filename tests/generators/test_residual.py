"""The residual block: gradients where the library's own strided shortcut kills the process, and weights of before."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from citlr.generators.probes.parts import Residual

PROGRAM = """
import torch
from citlr.generators.probes.parts import Residual
torch.set_num_threads(1)
for inputs, side in ((4, 64), (8, 64), (8, 96)):
    block = Residual(inputs, 16, stride=2).to(memory_format=torch.channels_last)
    x = torch.randn(8, inputs, side, side).to(memory_format=torch.channels_last).requires_grad_()
    for _ in range(10):
        torch.autograd.grad(block(x).square().mean(), [x, *block.parameters()])
print("whole")
"""


def test_narrow_blocks_of_large_images_leave_the_memory_whole() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=300, env=environment, check=False
    )
    assert (done.returncode, done.stdout) == (0, "whole\n"), done.stderr


@pytest.mark.parametrize(("inputs", "side", "stride"), [(16, 32, 2), (16, 33, 2), (24, 7, 3), (16, 8, 1)])
def test_the_shortcut_is_the_strided_convolution_and_takes_its_weights(inputs: int, side: int, stride: int) -> None:
    torch.manual_seed(3)
    block, before = Residual(inputs, 32, stride=stride), Residual(inputs, 32, stride=stride)
    before.shortcut, before.stride = nn.Conv2d(inputs, 32, 1, stride=stride), 1  # as it was
    block.load_state_dict(before.state_dict())
    x = torch.randn(3, inputs, side, side).to(memory_format=torch.channels_last).requires_grad_()
    found, expected = block(x), before(x)
    assert torch.equal(found, expected)
    gradients = [
        torch.autograd.grad(y.square().mean(), [x, *net.parameters()])
        for y, net in ((found, block), (expected, before))
    ]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)
