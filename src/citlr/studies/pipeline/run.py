"""`citlr calibrate --pipeline`: how often an audit through a trained generator accuses an innocent classifier.

Worlds whose counterfactuals are known, a generator trained in each, classifiers whose dependence on the attribute is
known, and the audit as a user gets it, gates and controls included. A finished audit is a line of `pipeline.jsonl`, so
that a run that was cut off goes on where it was, and can be widened later by more generators.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from citlr.audit.prediction import predict_sets, side_read
from citlr.audit.results.result import AuditResult
from citlr.config import TestConfig
from citlr.console import QUIET, Narrator
from citlr.errors import InputError
from citlr.generators.registry import build_generator
from citlr.invariance.responses import Responses
from citlr.invariance.verdict import assess
from citlr.predictors.base import Predictor
from citlr.randomness import hashed_seed
from citlr.run.engines import Engine
from citlr.run.files import write_json
from citlr.run.rows import Row, Rows
from citlr.run.stage import stage_key
from citlr.simulators.phantom.classifiers import classify
from citlr.simulators.phantom.cues import CUES, Cue
from citlr.simulators.phantom.effects import TrueEffect, true_effect
from citlr.studies.kit.worlds import DEFAULT_WORLD, anatomy_of
from citlr.studies.pipeline.families import Family, PhantomFamily, PlantedFamily
from citlr.studies.pipeline.making import (
    PipelineWorld,
    build_hidden,
    hidden_candidates,
    hidden_places,
    hidden_truth,
    make_hidden_world,
    make_world,
)
from citlr.studies.pipeline.page import write_pipeline_figure, write_pipeline_page
from citlr.studies.pipeline.study import FULL, QUICK, Candidate, PipelineSettings, Place, as_predictor, with_generator
from citlr.studies.pipeline.tables import summarise_hidden, summarise_pipeline

_OTHER = "holds audits of another seed, other settings or another version: give another folder."


def run_pipeline(
    *,
    out: str | Path,
    quick: bool = False,
    seed: int = 0,
    generators: int | None = None,
    correlations: Sequence[float] = (),
    settings: PipelineSettings | None = None,
    family: Family | None = None,
    kind: str | None = None,
    preset: str | None = None,
    engine: Engine | None = None,
    narrator: Narrator | None = None,
) -> dict[str, Any]:
    """Audit classifiers of known dependence through trained generators, and count.

    `family` is the kind of worlds; `kind` and `preset` are of another generator than the settings'. The engine does a
    world at a time.
    """
    family = family or PhantomFamily(anatomy_of(DEFAULT_WORLD))
    chosen = with_generator(settings or (QUICK if quick else FULL), kind, preset)
    if generators is not None:
        if generators < 1:
            raise InputError(f"generators is {generators}; at least one per correlation is needed.")
        chosen = replace(chosen, generators=generators)
    chosen = _correlated(chosen, correlations, family)
    build_generator(chosen.kind, size=chosen.size, preset=chosen.preset, **chosen.options)  # refused before the images
    narrator, folder = narrator or QUIET, Path(out)
    key = stage_key("pipeline", {"seed": seed, "settings": chosen.to_json(), "family": family.describe()})
    log = Rows(folder / "pipeline.jsonl", {"key": key}, other=_OTHER)
    made = Making(family, chosen, folder, log, narrator)
    worlds: list[tuple[Cue | None, Place]] = []
    if not correlations or isinstance(family, PlantedFamily):
        worlds += hidden_places(chosen, seed)
    # Numbers first: a run cut short has every correlation.
    for number in range(chosen.generators):
        for correlation in correlations or chosen.correlations:
            own = hashed_seed("pipeline", seed, correlation, number) % 2**31
            worlds.append((None, Place(correlation, number, own)))
    engine = engine or Engine()
    if engine.here:
        _run_here(worlds, made, seed)
    else:
        away = replace(made, folder=folder.absolute(), narrator=QUIET)
        for _, lines in engine.each(_run_away, away, worlds, narrator=narrator):
            for line in lines:
                log.add(line)
            _publish(made, seed)
    return _publish(made, seed)


@dataclass(frozen=True)
class Making:
    """What all worlds of a run have in common: their family, how much of everything, where it goes, and who is told."""

    family: Family
    settings: PipelineSettings
    folder: Path
    log: Rows
    narrator: Narrator


def _run_here(worlds: Sequence[tuple[Cue | None, Place]], made: Making, seed: int) -> None:
    """Audit in this process; a world that was done before has nothing new to publish."""
    for cue, place in worlds:
        if _run_world(cue, place, made):
            _publish(made, seed)


def _run_world(cue: Cue | None, place: Place, made: Making) -> bool:
    """Audit what is not audited yet; say whether there was anything."""
    before = len(made.log.lines)
    if cue is None:
        _run_place(place, made)
    else:
        _run_hidden(cue, place, made)
    return len(made.log.lines) > before


def _run_away(made: Making, world: tuple[Cue | None, Place]) -> list[dict[str, Any]]:
    """Audit the classifiers of a world in another process, and give the lines that are not in the log yet.

    They are kept in a file of the world's own, for a disk that machines share does not keep their lines apart.
    """
    cue, place = world
    known = made.log.lines
    own = Rows(made.folder / f"{place.name if cue is None else f'hidden-{cue}'}.jsonl", made.log.mark, other=_OTHER)
    own.lines = known + [line for line in own.lines if line not in known]
    _run_world(cue, place, replace(made, log=own))
    return [line for line in own.lines if line not in known]


def _correlated(settings: PipelineSettings, wanted: Sequence[float], family: Family) -> PipelineSettings:
    """Refuse, before anything is trained, worlds that there are not or that cannot be."""
    if isinstance(family, PlantedFamily) and wanted:
        # How strongly an attribute can go with a label depends on how frequent that is: any correlation will do.
        settings = replace(settings, correlations=tuple(wanted))
    unknown = [value for value in wanted if value not in settings.correlations]
    if unknown:
        raise InputError(
            f"There is no world of correlation {unknown[0]:g}; there are {', '.join(map(str, settings.correlations))}."
        )
    for value in wanted or settings.correlations:
        family.draw(Place(value, 0, 0), size=settings.size, patients=1)
    return settings


def _run_place(place: Place, made: Making) -> None:
    """Audit every classifier of a world that is not audited yet."""
    family, settings, log, narrator = made.family, made.settings, made.log, made.narrator
    planned = family.candidates(settings, place)
    waiting = [one for one in planned if not _lines(log.lines, "model", place=place.name, model=one.name)]
    if not waiting:
        return
    narrator.say(f"{place.name}: {len(waiting)} of {len(planned)} classifiers to audit")
    found = make_world(family, place, settings, made.folder / place.name, narrator)
    where = {"place": place.name, "correlation": place.correlation, "number": place.number}
    if not _lines(log.lines, "world", place=place.name):
        log.add({"what": "world", **where, **found.record})
    with narrator.progress("audits", len(waiting)) as tick:
        for count, (candidate, module) in enumerate(family.build(waiting, place, settings, found.drawn), 1):
            # The last level against the first.
            truth = true_effect(classify(module), found.units, (family.levels[0], family.levels[-1]))
            predictor = as_predictor(candidate, module, size=settings.size)
            log.add({"what": "model", **where, **audit_one(candidate, predictor, truth, found, place.seed)})
            tick(count, candidate.name)


def _run_hidden(cue: Cue, place: Place, made: Making) -> None:
    """Audit every classifier of a world with a cue that is not audited yet."""
    family, settings, log, narrator = made.family, made.settings, made.log, made.narrator
    planned = hidden_candidates(settings.hidden, place.seed, family.findings)
    # With the correlation, which is less than usual where that of the worlds that were asked for is.
    where = {"cue": cue, "correlation": place.correlation}
    waiting = [one for one in planned if not _lines(log.lines, "hidden", **where, model=one[0].name)]
    if not waiting:
        return
    narrator.say(f"hidden {cue}: {len(waiting)} of {len(planned)} classifiers to audit")
    found = make_hidden_world(family, cue, place, settings, made.folder / f"hidden-{cue}", narrator)
    if not _lines(log.lines, "hidden world", **where):
        log.add({"what": "hidden world", **where, **found.record})
    findings = list(dict.fromkeys(candidate.finding for candidate, _, _ in waiting))
    bases, images = family.bases(findings, place, settings, found.drawn)
    with narrator.progress("audits", len(waiting)) as tick:
        for count, (candidate, module) in enumerate(build_hidden(waiting, cue, bases, images), 1):
            truth = hidden_truth(module, cue, found.units, family.levels)
            predictor = as_predictor(candidate, module, size=2 * settings.hidden_size)
            log.add({"what": "hidden", **where, **audit_one(candidate, predictor, truth, found, place.seed)})
            tick(count, candidate.name)


def _lines(lines: Sequence[Row], what: str, **where: Any) -> list[Row]:
    """Give the lines about worlds ("world", "hidden world") or audits in them ("model", "hidden")."""
    wanted = {"what": what, **where}
    return [line for line in lines if all(line.get(name) == value for name, value in wanted.items())]


def audit_one(
    candidate: Candidate, predictor: Predictor, truth: TrueEffect, world: PipelineWorld, seed: int
) -> dict[str, Any]:
    """Audit one classifier as `citlr audit` does, and set the result beside the truth."""
    counterfactuals = world.counterfactuals
    responses = predict_sets(predictor, counterfactuals.sets, counterfactuals.cohort)
    size = side_read(predictor.input, counterfactuals.main.plan.size)
    result = world.audit(candidate.name, responses, test=TestConfig(), seed=seed, size=size)
    ungated = assess(
        Responses.from_frame(responses, attribute=counterfactuals.attribute, levels=counterfactuals.levels),
        **TestConfig().model_dump(),
        shared_seeds=counterfactuals.main.plan.shared_seeds,
        seed=seed,
    )
    return {
        "model": candidate.name,
        "kind": candidate.kind,
        "finding": candidate.finding,
        "architecture": candidate.architecture,
        "strength": candidate.strength,
        "true_psi": truth.psi,
        "true_flip_rate": truth.flip_rate,
        "true_mean_effect": truth.mean_effect,
        **_estimates(result, truth.contrast),
        "ungated_verdict": ungated.verdict,
    }


def _estimates(result: AuditResult, contrast: tuple[str, str]) -> dict[str, Any]:
    """Give the estimates, the verdict, and what the gates on the model's own predictions rest on."""
    (row,) = (one for one in result.tests if one.contrast == contrast)
    (unexplained,) = (one for one in result.quality.unexplained if one.contrast == contrast)
    (agreement,) = result.quality.agreement
    placebo, decisions, difference = result.controls.placebo, agreement.decisions, unexplained.difference
    areas = [*agreement.attribute_auroc.values(), *([agreement.label_auroc] if agreement.label_auroc else [])]
    return {
        "psi": row.psi.estimate,
        "psi_low": row.psi.low,
        "psi_high": row.psi.high,
        "mean_effect": row.mean_effect.estimate,
        "mean_effect_low": row.mean_effect.low,
        "mean_effect_high": row.mean_effect.high,
        "pvalue": row.pvalue,
        "placebo_pvalue": None if placebo is None else placebo.pvalue,
        "carried": row.carried,
        "agreement": None if decisions is None else decisions.estimate,
        "agreement_rank": agreement.rank,
        "agreement_auroc": max((abs(after - before) for before, after in areas), default=None),
        "difference": None if difference is None else [difference.estimate, difference.low, difference.high],
        "beyond": unexplained.beyond,
        "verdict": result.verdict,
        "failed_gates": [gate.name for gate in result.quality.gates if gate.passed is False],
    }


def _publish(made: Making, seed: int) -> dict[str, Any]:
    """Write tables, figure and page of what is there so far, by whichever process."""
    log, folder = made.log, made.folder
    log.read()
    # Worlds finish in any order, where several processes work.
    lines = sorted(log.lines, key=_place_of)
    tables = {
        "seed": seed,
        "settings": made.settings.to_json(),
        "family": made.family.describe(),
        "worlds": _lines(lines, "world"),
        "models": _lines(lines, "model"),
        "hidden_worlds": _lines(lines, "hidden world"),
        "hidden": _lines(lines, "hidden"),
        "summary": summarise_pipeline(_lines(lines, "model")),
        "hidden_summary": summarise_hidden(_lines(lines, "hidden")),
    }
    write_json(folder / "pipeline.json", tables)
    write_pipeline_figure(folder / "pipeline.json", folder / "pipeline.png")
    write_pipeline_page(folder / "pipeline.json", folder / "pipeline.md")
    return tables


def _place_of(line: Row) -> tuple[int, int, float]:
    """Say where a line's world stands among all."""
    return CUES.index(line["cue"]) if "cue" in line else -1, line.get("number", 0), line["correlation"]
