"""The training loop: stops, goes on, halves, counts its time."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch

from citlr.console import Narrator
from citlr.errors import StateError
from citlr.learning.checkpoints import load_state, seconds_spent
from citlr.learning.loop import run
from citlr.learning.plan import Budget, Learner, Progress, TrainingPlan
from citlr.learning.trainer import Trainer


def test_training_stops_at_nan_and_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    def plan(poison: int) -> TrainingPlan:
        module = torch.nn.Linear(2, 1)
        torch.nn.init.ones_(module.weight)
        learner = Learner(module, torch.optim.Adam(module.parameters(), lr=0.1))

        def update(step: int, random: torch.Generator) -> dict[str, float]:
            loss = learner.runner(torch.ones(1, 2)).square().sum()
            return {"loss": trainer.descend(loss * (float("nan") if step == poison else 1.0), learner)}

        return TrainingPlan("part", {"net": learner}, update, Budget(8, checkpoint_minutes=0.0), seed=0)

    trainer = Trainer("cpu")
    with pytest.raises(StateError, match=r"Training of the part stopped at step 5: the loss is nan.*part.safetensors"):
        run(plan(5), trainer, directory=tmp_path)
    ended, whole = plan(-1), plan(-1)
    run(ended, trainer, directory=tmp_path)
    run(whole, trainer)
    assert torch.equal(ended.learners["net"].module.weight, whole.learners["net"].module.weight)


def test_training_that_stops_before_its_first_checkpoint_keeps_the_weights_of_the_step_before(tmp_path: Path) -> None:
    module, trainer = torch.nn.Linear(2, 1), Trainer("cpu")
    learner, weights = Learner(module, torch.optim.Adam(module.parameters(), lr=0.1)), []

    def update(step: int, random: torch.Generator) -> dict[str, float]:
        weights.append(module.weight.detach().clone())
        loss = learner.runner(torch.ones(1, 2)).square().sum()
        return {"loss": trainer.descend(loss * (float("nan") if step == 3 else 1.0), learner)}

    # Two minutes between checkpoints, as by default: there is none yet.
    with pytest.raises(StateError, match=r"stopped at step 3: the loss is nan.*is kept in .*part.safetensors"):
        run(TrainingPlan("part", {"net": learner}, update, Budget(8), seed=0), trainer, directory=tmp_path)
    tensors, head = load_state(tmp_path / "part.safetensors")
    assert head["step"] == 3
    assert torch.equal(tensors["net/module/weight"], weights[3])
    with pytest.raises(StateError, match=r"constant or extreme values\.$"):
        run(TrainingPlan("part", {"net": learner}, update, Budget(8), seed=0), trainer)


class Voice(Narrator):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


@pytest.mark.parametrize(
    "trouble",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
        MemoryError(),
    ],
)
def test_training_halves_the_batch_once_when_memory_runs_out(tmp_path: Path, trouble: Exception) -> None:
    def train(limit: int, folder: Path, steps: int = 6) -> tuple[list[int], Voice]:
        module, trainer, narrator = torch.nn.Linear(1, 1), Trainer("cpu"), Voice()
        torch.nn.init.ones_(module.weight)
        learner, sizes = Learner(module, torch.optim.SGD(module.parameters(), lr=0.1)), []

        def update(step: int, random: torch.Generator) -> dict[str, float]:
            rows = trainer.rows(40, seed=0, part="part", step=step, batch_size=8)
            if len(rows) > limit and step >= 2:
                raise trouble
            sizes.append(len(rows))
            return {"loss": trainer.descend(learner.runner(torch.ones(len(rows), 1)).square().mean(), learner)}

        budget = Budget(steps, batch_size=8, checkpoint_minutes=0.0)
        run(
            TrainingPlan("part", {"net": learner}, update, budget, seed=0), trainer, directory=folder, narrator=narrator
        )
        return sizes, narrator

    sizes, narrator = train(4, tmp_path / "a")
    assert sizes == [8, 8, 4, 4, 4, 4]
    assert narrator.said == ["Memory ran out in training the part at step 2: from there on every batch is halved."]
    # A run that goes on from the checkpoint keeps to half batches.
    assert train(8, tmp_path / "a", steps=8)[0] == [4, 4]
    with pytest.raises(StateError, match=r"ran out of memory at step 2, with a batch of 4.*part.safetensors"):
        train(2, tmp_path / "b")


def test_training_lets_other_errors_through() -> None:
    module = torch.nn.Linear(1, 1)
    learner = Learner(module, torch.optim.SGD(module.parameters(), lr=0.1))

    def update(step: int, random: torch.Generator) -> dict[str, float]:
        raise RuntimeError("shape mismatch")

    plan = TrainingPlan("part", {"net": learner}, update, Budget(2), seed=0)
    with pytest.raises(RuntimeError, match="shape mismatch"):
        run(plan, Trainer("cpu"))


def test_training_stops_early_and_keeps_the_best_weights() -> None:
    module = torch.nn.Linear(1, 1)
    learner = Learner(module, torch.optim.SGD(module.parameters(), lr=0.1))
    losses, seen = iter([3.0, 1.0, 2.0, 2.0, 2.0]), []

    def update(step: int, random: torch.Generator) -> dict[str, float]:
        return {"loss": trainer.descend(learner.runner(torch.ones(1, 1)).sum(), learner)}

    def validate() -> float:
        seen.append(module.weight.item())
        return next(losses)

    trainer = Trainer("cpu")
    budget = Budget(100, validate_every=1, patience=2)
    run(TrainingPlan("part", {"net": learner}, update, budget, 0, validate), trainer)
    assert len(seen) == 4
    assert module.weight.item() == seen[1]


def test_a_training_that_has_lost_patience_goes_on_until_enough_is_kept(tmp_path: Path) -> None:
    module, trainer, kept = torch.nn.Linear(1, 1), Trainer("cpu"), []
    learner = Learner(module, torch.optim.SGD(module.parameters(), lr=0.1))

    def update(step: int, random: torch.Generator) -> dict[str, float]:
        return {"loss": trainer.descend(learner.runner(torch.ones(1, 1)).square().sum(), learner)}

    def keep(progress: Progress) -> None:
        # Before the checkpoint that counts this validation: it can be resumed that way round only.
        stored = load_state(tmp_path / "state.safetensors")[1]["step"] if kept else 0
        kept.append((progress.step, stored, progress.rows[-1]["measure"]))

    plan = TrainingPlan(
        "part",
        {"net": learner},
        update,
        Budget(9, validate_every=2, patience=1),
        seed=0,
        validate=lambda: {"validation": 1.0, "measure": "as it is"},
        file="state",
        enough=lambda progress: len(progress.rows) >= 3,
        keep=keep,
    )
    assert run(plan, trainer, directory=tmp_path).step == 6
    assert kept == [(2, 0, "as it is"), (4, 2, "as it is"), (6, 4, "as it is")]
    assert [path.name for path in tmp_path.iterdir()] == ["state.safetensors"]


def test_batches_are_a_function_of_seed_and_step() -> None:
    trainer = Trainer("cpu")
    rows = [trainer.rows(10, seed=0, part="a", step=step, batch_size=4) for step in range(5)]
    assert sorted(np.concatenate(rows)[:10].tolist()) == list(range(10))
    assert sorted(np.concatenate(rows)[10:].tolist()) == list(range(10))
    np.testing.assert_array_equal(rows[3], trainer.rows(10, seed=0, part="a", step=3, batch_size=4))


def test_the_time_of_a_training_is_counted_over_all_its_sessions(tmp_path: Path) -> None:
    def plan(steps: int) -> TrainingPlan:
        module = torch.nn.Linear(1, 1)
        learner = Learner(module, torch.optim.SGD(module.parameters(), lr=0.1))

        def update(step: int, random: torch.Generator) -> dict[str, float]:
            began = time.process_time()
            while time.process_time() - began < 0.05:
                torch.rand(10)
            return {"loss": trainer.descend(learner.runner(torch.ones(1, 1)).square().sum(), learner)}

        return TrainingPlan("part", {"net": learner}, update, Budget(steps), seed=0)

    trainer = Trainer("cpu")
    assert seconds_spent(tmp_path) == 0
    run(plan(4), trainer, directory=tmp_path)
    first = seconds_spent(tmp_path)
    assert first >= 0.2
    run(plan(8), trainer, directory=tmp_path)
    assert seconds_spent(tmp_path) >= first + 0.2
