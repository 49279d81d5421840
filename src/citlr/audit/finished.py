"""Finished audits, found where a user points: a run folder, one model of it, or an audit.json that was handed on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from citlr.audit.prediction import read_responses, side_read
from citlr.audit.results.result import AuditResult, read_result
from citlr.audit.sources import images_replaced, replaced
from citlr.audit.stages import COHORT, GENERATOR, images_fingerprint
from citlr.config import TestConfig, parse_section
from citlr.data.cohort import Cohort
from citlr.data.counterfactuals import CounterfactualSet
from citlr.errors import CitlrError, InputError, did_you_mean
from citlr.invariance.responses import Responses
from citlr.predictors.specs import InputSpec
from citlr.run.files import digest_or_missing, fingerprint
from citlr.run.folder import Run
from citlr.values import File, check_value

# The settings by which a generator's draws of an image are these and no others.
_DRAWN = ("attribute", "levels", "draws", "guidance", "shared_seeds", "seed")


@dataclass(frozen=True, eq=False)
class Finished:
    """One finished audit.

    - `responses`: What the result was computed from; None for an audit.json alone.
    - `test`: The settings of the test; None for an audit.json alone.
    - `shared_seeds`: Whether the levels of one draw share their noise.
    - `cohort`: Fingerprint of the cohort and its images; empty where nobody noted it.
    - `redrawn`: Fingerprint of the generator, its draws and their seed; empty as well.
    - `contents`: Reads the digest of every test image; None where the files are no longer those of the audit.
    - `replaced`: Says which files of the model and the cohort hold something else now; nothing of an audit.json alone.
    - `alone`: The models that only some of the runs have which are compared, so that nothing is said of them.
    - `place`: The folder that it lies in, without links: audits of one name are told apart by those above.
    """

    name: str
    model: str
    result: AuditResult
    responses: Responses | None = None
    test: TestConfig | None = None
    shared_seeds: bool = True
    cohort: str = ""
    redrawn: str = ""
    contents: Callable[[], Mapping[str, str] | None] | None = None
    place: Path = Path()
    replaced: Callable[[], tuple[str, ...]] = tuple
    alone: tuple[str, ...] = ()


def find(place: str | Path, *, responses: bool = False) -> dict[str, Finished]:
    """Return the finished audits at a place, by model."""
    path, model = _parts(place)
    if path.is_file():
        result = read_result(path)
        if model and model != result.model:
            raise InputError(f"'{path}' is the audit of '{result.model}', not of '{model}'.")
        place = path.resolve().parent
        return {result.model: Finished(f"{place.name}/{path.name}", result.model, result, place=place)}
    run = Run.open(path)
    names = list(run.config.models)
    if model and model not in names:
        raise InputError(f"The run '{path}' has no model '{model}'.{did_you_mean(model, names)}")
    images = cache(partial(images_replaced, run))
    return {name: _of_run(run, name, responses, images) for name in names if not model or name == model}


def _parts(place: str | Path) -> tuple[Path, str]:
    """Take `RUN:MODEL` apart; a path that exists as it is has no model in it."""
    check_value("audit", place, File)
    whole = Path(place)
    if whole.exists():
        return whole, ""
    folder, colon, model = str(place).rpartition(":")
    return (Path(folder), model) if colon and Path(folder).exists() else (whole, "")


def _of_run(run: Run, name: str, responses: bool, images: Callable[[], bool]) -> Finished:
    remedy = f"run `citlr test {run.root}` to finish it"
    tested = run.require(f"test.{name}", remedy)
    folder = run.root if len(run.config.models) == 1 else run.path("models", name)
    result = read_result(folder / "audit.json")
    place = run.root.resolve()
    changed = partial(replaced, run, name, images)
    title = place.name if len(run.config.models) == 1 else f"{place.name}:{name}"
    if not responses or not result.tests:
        return Finished(title, name, result, place=place, replaced=changed)
    run.require(f"predict.{name}", remedy)
    plan = CounterfactualSet.open(run.path("counterfactuals", "levels")).plan
    frame = read_responses(folder / "responses.parquet")
    number = len(result.dose_response) > 0
    found = Responses.from_frame(frame, attribute=plan.attribute, levels=plan.levels, number=number)
    # What it was tested by, which the configuration of now need not be.
    settings = run.config.test.model_dump() | tested.inputs.get("test", {})
    test = parse_section(TestConfig, settings, f"The record of '{title}'")
    read = run.record("cohort")
    return Finished(
        title,
        name,
        result,
        found,
        test,
        plan.shared_seeds,
        cohort="" if read is None else read.discovered,
        redrawn=_redrawn(run),
        contents=partial(_contents, run),
        place=place,
        replaced=changed,
    )


def _contents(run: Run) -> dict[str, str] | None:
    """Digest the files of the test images, if all of the cohort is still what was audited."""
    read = run.record("cohort")
    try:
        # An image that was replaced since says nothing of the one that was audited.
        if read is None or images_fingerprint(run.root) != read.discovered:
            return None
        cohort = Cohort.from_parquet(run.path(COHORT)).part("test")
    except CitlrError:
        return None
    pairs = zip(cohort.frame["image_id"].astype(str), cohort.frame["path"], strict=True)
    digests = {image: digest_or_missing(cohort.root / path) for image, path in pairs}
    return None if "missing" in digests.values() else digests


def _redrawn(run: Run) -> str:
    """Fingerprint what redraws: the trained generator's files, and which draws of it were taken with which seed."""
    fit, drawn = run.record("fit"), run.record("generate")
    if fit is None or drawn is None:
        return ""
    # Losses hold times; the cohort is compared by itself.
    files = {name: digest for name, digest in fit.files.items() if not name.startswith(f"{GENERATOR}/training/")}
    asked = drawn.inputs.get("generate", {})
    return fingerprint([files, {name: asked.get(name) for name in _DRAWN}])


def side_answered(run: Run, name: str) -> int:
    """Return the side of the images that a model has answered, as its record says: the model may be gone."""
    record, own = run.record(f"predict.{name}"), run.config.generator.size
    read = None if record is None else record.inputs.get("reads", record.inputs.get("size"))
    return side_read(InputSpec(size=read), own)
