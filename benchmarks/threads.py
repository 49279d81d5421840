"""What waiting threads cost: a convolution's training step under several settings of libgomp, alone or beside others.

python benchmarks/threads.py                 # alone
python benchmarks/threads.py --beside 2      # beside two busy processes
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time

SETTINGS = {
    "default": {},
    "GOMP_SPINCOUNT=5000 (citlr's)": {"GOMP_SPINCOUNT": "5000"},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
STEPS = 40


def step_time() -> None:
    """Print milliseconds of wall and of processor time per step."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    layers = [nn.Conv2d(16, 64, 3, padding=1), nn.SiLU(), nn.GroupNorm(8, 64), nn.Conv2d(64, 16, 3, padding=1)]
    net = nn.Sequential(*layers)
    optimizer = torch.optim.Adam(net.parameters())
    x = torch.randn(32, 16, 16, 16)

    def step() -> None:
        optimizer.zero_grad()
        (net(x) - x).square().mean().backward()
        optimizer.step()

    for _ in range(3):
        step()
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(STEPS):
        step()
    print(f"{(time.perf_counter() - wall) / STEPS * 1e3:.0f} {(time.process_time() - cpu) / STEPS * 1e3:.0f}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--beside", type=int, default=0)
    parser.add_argument("--one", action="store_true")
    options = parser.parse_args()
    if options.one:
        step_time()
        return
    own = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "GOMP_"))}
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(options.beside)]
    try:
        print("| setting | wall ms a step | processor ms a step |\n|---|--:|--:|")
        for name, setting in SETTINGS.items():
            found = [
                subprocess.run(
                    [sys.executable, __file__, "--one"],
                    env={**own, **setting},
                    capture_output=True,
                    text=True,
                    check=True,
                ).stdout.split()
                for _ in range(3)
            ]
            wall, cpu = (sorted(int(one[k]) for one in found)[1] for k in (0, 1))
            print(f"| {name} | {wall} | {cpu} |")
    finally:
        for process in busy:
            process.kill()


if __name__ == "__main__":
    main()
