"""An audit in Python, without a run folder: the same stages, from a fitted generator and a model to a result."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from citlr.audit.assembly import quality_settings_of
from citlr.audit.generation import Counterfactuals
from citlr.audit.measures.faithfulness import Faithfulness, read_faithfulness
from citlr.audit.prediction import check_on_cohort, kind_of_answers, read_responses, side_read
from citlr.audit.results.result import AuditResult
from citlr.audit.results.verdicts import AuditInputs, Settings, audit_responses
from citlr.audit.stages import QUALITY, RESPONSES, Asked, predict_stage, quality_stage
from citlr.config import ControlsConfig, GateConfig, QualityConfig, TestConfig, parse_section
from citlr.console import QUIET, Narrator
from citlr.data.cohort import Cohort
from citlr.errors import InputError, require_kind
from citlr.predictors.base import Predictor
from citlr.run.engines import Engine
from citlr.run.files import fingerprint
from citlr.run.machine import versions
from citlr.run.stages import Stages
from citlr.values import Seed, check_value


def audit(
    model: Predictor,
    counterfactuals: Counterfactuals,
    *,
    train: Cohort | None = None,
    validation: Cohort | None = None,
    margin: float = 0.02,
    alpha: float = 0.05,
    outcome: Literal["decision", "probability"] = "decision",
    threshold: float | Mapping[str, float] = 0.5,
    randomizations: int = 4999,
    gates: GateConfig | Mapping[str, Any] | None = None,
    controls: ControlsConfig | Mapping[str, Any] | None = None,
    quality: QualityConfig | Mapping[str, Any] | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    engine: Literal["loky", "dask", "ray"] = "loky",
    workers: int = 1,
    scheduler: str | None = None,
    narrator: Narrator | None = None,
) -> AuditResult:
    """Audit a model on redrawn images.

    Parameters
    ----------
    model : Predictor
        See `citlr.load_predictor`.
    counterfactuals : Counterfactuals
        See `citlr.generate`.
    train, validation : Cohort, optional
        What the probes that judge the generator are trained and chosen on; what the generator itself learnt from by
        default, which a generator read from disk no longer knows.
    margin : float
        Largest change that does not matter, in (0, 1): bound of the mean effect and of psi.
    alpha : float
        Error rate of "dependence" over all rows together, and of "equivalent" for each row by itself.
    outcome : {"decision", "probability"}
        What is tested.
    threshold : float or mapping of str to float
        Operating point of the decisions.
    randomizations : int
        Of the test, at least 99.
    gates, controls : GateConfig, ControlsConfig or mapping, optional
        Limits of the generator; what is planted. Keys and defaults are those of a configuration.
    quality : QualityConfig or mapping, optional
        The network of FID and KID, the null interventions in a row, and the parts of `train` on which the generator is
        trained again for its learning curve.
    seed : int
        Of the test, the probes and the controls.
    out : path-like, optional
        Folder that keeps the measurement of the images and the model's probabilities: the next audit of the same images
        takes up what it shares. Nothing is kept without it.
    engine : {"loky", "dask", "ray"}
        Where images are read and the model is run, see `citlr.generate`; machines of a cluster have to reach the
        redrawn images and `out`.
    workers : int
        Processes, at least 1, where they are started here.
    scheduler : str, optional
        Address of a running cluster; without it one is started here.
    narrator : Narrator, optional
        Shows progress.

    Returns
    -------
    AuditResult
        Print it, `to_frame()`, `plot()`, `to_html()`, `to_json()`.

    Raises
    ------
    InputError
        If the model cannot be audited or sent to other processes, the training split is not known, a test patient is in
        it, or no cluster answers.
    StateError
        If workers die again and again at one part, or another process works in `out`.
    """
    require_kind(model, Predictor, "model", "a predictor, such as citlr.load_predictor(model, labels=[...])")
    require_kind(
        counterfactuals, Counterfactuals, "counterfactuals", "what citlr.generate or read_counterfactuals gives"
    )
    narrator = narrator or QUIET
    asked = {"outcome": outcome, "threshold": threshold, "margin": margin, "alpha": alpha}
    test = parse_section(TestConfig, {**asked, "randomizations": randomizations}, "audit")
    seed = check_value("seed", seed, Seed)
    splits = _splits(counterfactuals, train, validation)
    seen = set[str]().union(*(_patients(part) for part in splits)) & _patients(counterfactuals.cohort)
    if seen:
        raise InputError(
            f"{len(seen)} patients of the redrawn images are in the training or validation split: redraw the test part."
        )
    for remark in check_on_cohort(model, counterfactuals.cohort, size=counterfactuals.main.plan.size):
        narrator.say(remark)
    chosen = Engine(engine, workers, scheduler, narrator)
    limits, measured = (
        parse_section(GateConfig, gates or {}, "gates"),
        parse_section(QualityConfig, quality or {}, "quality"),
    )
    planted = parse_section(ControlsConfig, controls or {}, "controls")
    with tempfile.TemporaryDirectory(prefix="citlr-") as temporary:
        stages = Stages(temporary if out is None else out, narrator)
        with stages.locked():
            faithfulness, responses, remarks = _measured(
                stages, model, counterfactuals, splits, (limits, measured), seed, chosen
            )
        return audit_responses(
            AuditInputs(
                model=model.name,
                responses=responses,
                whole=counterfactuals.cohort,
                counterfactuals=counterfactuals,
                faithfulness=faithfulness,
                settings=Settings(test, limits, planted, seed),
                provenance={
                    "versions": versions(),
                    "seed": seed,
                    "config": {"test": test.model_dump(mode="json")},
                    "inputs": {"model_sha256": model.fingerprint()},
                    "model_run": {"where": "here", "answers": kind_of_answers(responses)},
                },
                size=side_read(model.input, counterfactuals.main.plan.size),
                remarks=remarks,
            )
        )


def _measured(
    stages: Stages,
    model: Predictor,
    counterfactuals: Counterfactuals,
    splits: tuple[Cohort, Cohort],
    limits: tuple[GateConfig, QualityConfig],
    seed: int,
    engine: Engine,
) -> tuple[Faithfulness, pd.DataFrame, tuple[str, ...]]:
    """Measure the redrawn images and run the model on them, or take what `stages` holds of exactly these.

    The last are remarks on the model: what a whole batch shows, and not the few images that are asked for first.
    """
    gates, quality = limits
    sizes = [side_read(model.input, counterfactuals.main.plan.size)]
    settings = quality_settings_of(gates, quality, counterfactuals.generator.hold, sizes, seed)
    common: dict[str, Any] = {
        # The originals too: what a model reads is made of them, and they may have changed since.
        "after": (counterfactuals.key or counterfactuals.main.plan.key, counterfactuals.cohort.fingerprint()),
        "narrator": stages.narrator,
        "engine": engine,
    }
    stages.do(quality_stage(lambda: counterfactuals, splits, settings, **common))
    name = fingerprint([model.name, model.fingerprint()])[:16]  # a model may be called what no folder can be
    place = f"models/{name}/{RESPONSES}"
    asked = stages.do(predict_stage(model, lambda: counterfactuals, Asked(name, place), **common))
    remarks = tuple(str(one) for one in asked.facts["remarks"])
    return read_faithfulness(stages.path(QUALITY)), read_responses(stages.path(place)), remarks


def _patients(cohort: Cohort) -> set[str]:
    return {*cohort.frame["patient_id"].astype(str)}


def _splits(counterfactuals: Counterfactuals, train: Cohort | None, validation: Cohort | None) -> tuple[Cohort, Cohort]:
    known: tuple[Cohort, Cohort] | None = getattr(counterfactuals.generator, "splits", None)
    if train is not None and validation is not None:
        for name, part in (("train", train), ("validation", validation)):
            require_kind(part, Cohort, name, "a cohort, such as cohort.part('train')")
        return train, validation
    if train is not None or validation is not None or known is None:
        raise InputError(
            "The splits that the generator learnt from are not known: give train= and validation=, whose images train "
            "the probes that judge the redrawn ones."
        )
    return known
