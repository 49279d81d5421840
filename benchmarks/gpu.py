"""What one card does: training steps and redrawn images a second at 128 and 256 pixels, and how near that is to it.

`python benchmarks/gpu.py` (under 8 minutes on one card) writes a table of the generator of a preset: training steps of
its two networks, images redrawn (levels x draws), the share of the card's own rate of matrix products that this is, and
the peak memory; with --compiled the networks are compiled first. A second table says on what redrawing spends its time:
only convolutions and products count operations. Without a card: `--device cpu --size 32 --seconds 1` runs the same
code, and says nothing of a card.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from citlr.console import Narrator
from citlr.generators.diffusion.ldm import LatentDiffusion
from citlr.generators.diffusion.parts import Encoded, train_autoencoder, train_denoiser
from citlr.generators.registry import build_generator
from citlr.learning.beside import one_thread
from citlr.learning.session import Session
from citlr.learning.store import Dataset, Stream
from citlr.learning.trainer import Trainer
from citlr.run.files import write_text
from citlr.simulators.phantom.world import PhantomWorld

LEVELS, DRAWS = ("female", "male"), 4
COLUMNS = ("pixels", "what", "a second", "TF/s", "share of matrix products", "peak memory GB")
# By a part of the name of an operation, or of a card's kernel; the first that fits.
KINDS = {
    "convolutions": ("conv", "fprop", "cudnn"),
    "matrix products": ("addmm", "aten::mm", "bmm", "gemm", "cutlass"),
    "attention": ("attention", "fmha", "flash"),
    "normalisations": ("norm", "moments"),
    "activations": ("silu", "gelu", "sigmoid", "softmax"),
    "copies": ("copy", "cat", "contiguous", "clone", "memcpy"),
}


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def rate(work: Callable[[], object], device: torch.device, seconds: float) -> float:
    """Count calls a second, after two to warm up."""
    for _ in range(2):
        work()
    wait(device)
    began, calls = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        work()
        wait(device)
        calls += 1
    return calls / (time.perf_counter() - began)


def operations(work: Callable[[], object]) -> float:
    """Count floating point operations, on one thread: the counter does not see what other threads compute."""
    with one_thread(), FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


def products(device: torch.device, kind: torch.dtype, seconds: float) -> float:
    """Operations a second of the card's matrix products, in the precision that is computed in."""
    side = 8192 if device.type == "cuda" else 512
    a = torch.ones(side, side, device=device, dtype=kind)
    return 2 * side**3 * rate(lambda: a @ a, device, seconds)


def shares_of_time(work: Callable[[], object], device: torch.device) -> dict[str, float]:
    """By kind of operation, its share of the time: of the card's kernels, or of one thread of the processor."""
    on_card = device.type == "cuda"
    activity = ProfilerActivity.CUDA if on_card else ProfilerActivity.CPU
    with one_thread(), profile(activities=[activity]) as seen:
        work()
    spent = dict.fromkeys((*KINDS, "all else"), 0.0)
    for event in seen.key_averages():
        name = event.key.lower()
        kind = next((kind for kind, parts in KINDS.items() if any(part in name for part in parts)), "all else")
        spent[kind] += event.self_device_time_total if on_card else event.self_cpu_time_total
    return {kind: time / sum(spent.values()) for kind, time in spent.items()}


def steps_of(model: LatentDiffusion, data: Dataset, session: Session, part: str) -> Callable[[int], None]:
    """Train a part for some steps, as a fit does."""
    config, sampler = model.config, model.sampler

    def train(steps: int) -> None:
        if part == "autoencoder":
            train_autoencoder(session, replace(config.autoencoder, ae_steps=steps), sampler.autoencoder, data, data)
            return
        shape = (len(data), *sampler.autoencoder.encode(data.images(slice(0, 1)).to(session.device)).shape[1:])
        z = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        encoded = Encoded(Stream(z), Stream(z), sampler.conditions.nothing(len(data)))
        settings, both = replace(config.denoiser, denoiser_steps=steps), (encoded, encoded)
        train_denoiser(session, settings, sampler.denoiser, sampler.process, sampler.conditions, both)

    return train


def measure(
    size: int, options: argparse.Namespace, device: torch.device, peak: float
) -> tuple[list[dict[str, object]], dict[str, object]]:
    """Give the rows of a size, and on what redrawing spends its time."""
    with tempfile.TemporaryDirectory() as folder:
        world = PhantomWorld(size=size)
        cohort = world.sample(options.images, seed=0, images_per_patient=1).write(
            Path(folder), min_patients_per_level=1
        )
        model = build_generator(
            "dldm",
            size=size,
            preset=options.preset,
            accelerator="cuda" if device.type == "cuda" else "cpu",
            ae_steps=2,
            denoiser_steps=2,
            guidance=1.0,
            compiled=options.compiled,
        )
        assert isinstance(model, LatentDiffusion)
        model.fit(cohort.part("train"), cohort.part("validation"), seed=0)
        data = Dataset.of(cohort.part("train"), size=size, directory=None)
        test = cohort.part("test").take(np.arange(min(32, len(cohort.part("test")))))
        images = test.pixels(size=size)
    trainer = Trainer("cuda" if device.type == "cuda" else "cpu", compiled=options.compiled)
    session = Session(trainer, 0, None, narrator=Narrator(quiet=True))
    rows = []

    def row(what: str, calls: float, each: float, flops: float) -> None:
        memory = torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else float("nan")
        values = (size, what, calls * each, flops * calls / 1e12, flops * calls / peak, memory)
        rows.append(dict(zip(COLUMNS, values, strict=True)))
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    for part in ("autoencoder", "denoiser"):
        train = steps_of(model, data, session, part)
        flops = operations(partial(train, 2)) - operations(partial(train, 1))
        # Two lengths: what a training does once, before and after its steps, is not in their difference.
        few, many = (1 / rate(partial(train, k * options.steps), device, options.seconds / 2) for k in (1, 3))
        row(f"training steps, {part}", 2 * options.steps / max(many - few, 1e-9), 1, flops)

    def redraw() -> None:
        model.generate(images, test.frame, attribute="sex", levels=LEVELS, draws=DRAWS)

    row("redrawn images", rate(redraw, device, options.seconds), len(images) * len(LEVELS) * DRAWS, operations(redraw))
    return rows, {"pixels": size, **shares_of_time(redraw, device)}


def table(rows: list[dict[str, object]]) -> list[str]:
    """Write rows of the same columns as Markdown."""
    lines = ["| " + " | ".join(rows[0]) + " |", "|---" * len(rows[0]) + "|"]
    for found in rows:
        cells = (format(value, ".3g") if isinstance(value, float) else str(value) for value in found.values())
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--size", type=int, nargs="+", default=[128, 256])
    parser.add_argument("--preset", default="laptop")
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--steps", type=int, default=50, help="training steps in a call")
    parser.add_argument("--seconds", type=float, default=20.0, help="a row")
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("gpu.md"))
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("There is no CUDA device here: run it where one is, or the code alone with --device cpu --size 32.")
    device = torch.device(options.device)
    kind = torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32
    peak = products(device, kind, min(5.0, options.seconds))
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "the processor, not a card"
    each = [measure(size, options, device, peak) for size in options.size]
    said = (
        f"{name}: matrix products {peak / 1e12:.3g} TF/s ({kind}); preset {options.preset}, torch {torch.__version__}"
    )
    lines = [said + (", compiled" if options.compiled else ""), ""]
    lines += table([row for rows, _ in each for row in rows])
    lines += ["", "Redrawing, shares of the time:", "", *table([shares for _, shares in each])]
    write_text(options.out, "\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
