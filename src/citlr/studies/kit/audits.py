"""What every model of a study is audited with: images that a generator of the study redrew once, and their quality."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from citlr.audit.generation import Counterfactuals
from citlr.audit.measures.faithfulness import Faithfulness, QualitySettings
from citlr.audit.redrawing.coin import coin_sample
from citlr.audit.redrawing.drawing import CohortRequest
from citlr.audit.results.result import AuditResult
from citlr.audit.results.verdicts import AuditInputs, Settings, audit_responses
from citlr.audit.stages import Recipe, fit_stage
from citlr.config import ControlsConfig, GateConfig, TestConfig
from citlr.data.cohort import Cohort
from citlr.generators.registry import build_generator
from citlr.run.machine import versions
from citlr.run.stage import Stage
from citlr.run.stages import Stages


def generator_recipe(
    kind: str,
    generator: Mapping[str, Any],
    of: tuple[str, tuple[str, ...]],
    *,
    draws: int,
    placebo_images: int | None,
    seed: int,
    **quality: Any,
) -> Recipe:
    """Say how a generator is trained, and test images redrawn under levels `of` an attribute and measured."""
    request = CohortRequest(*of, draws, placebo_images=coin_sample(placebo_images), seed=seed)
    settings, measured = {"kind": kind, **generator}, QualitySettings(generator["hold"], seed=seed, **quality)
    return Recipe(lambda: build_generator(**settings), settings, request, measured, seed)


def training_stage(
    stages: Stages, kind: str, settings: Mapping[str, Any], splits: tuple[Cohort, Cohort], *, seed: int, name: str
) -> Stage:
    """Return the stage that trains a generator, one of several, as `models/<name>`."""
    return fit_stage(
        lambda: build_generator(kind, **settings),
        {"kind": kind, **settings},
        splits,
        seed=seed,
        narrator=stages.narrator,
        name=f"fit.{name}",
        place=f"models/{name}",
    )


@dataclass(frozen=True)
class Redrawn:
    """A cohort whose test part is redrawn and measured."""

    whole: Cohort
    counterfactuals: Counterfactuals
    faithfulness: Faithfulness

    def audit(
        self,
        model: str,
        responses: pd.DataFrame,
        *,
        test: TestConfig,
        seed: int,
        size: int | None = None,
        inputs: Mapping[str, Any] | None = None,
    ) -> AuditResult:
        """Audit what a model said as `citlr audit` does; `size` is that of its images, `inputs` go to the provenance.

        The ladder of planted biases is left out: it is no part of the verdict and most of an audit's arithmetic, and
        the models of a study are a ladder themselves.
        """
        provenance = {"versions": versions(), "seed": seed} | ({} if inputs is None else {"inputs": dict(inputs)})
        return audit_responses(
            AuditInputs(
                model=model,
                responses=responses,
                whole=self.whole,
                counterfactuals=self.counterfactuals,
                faithfulness=self.faithfulness,
                settings=Settings(test, GateConfig(), ControlsConfig(planted=(), bootstraps=0), seed),
                provenance=provenance,
                size=size,
            )
        )
