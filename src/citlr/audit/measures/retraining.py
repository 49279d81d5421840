"""The learning curve of a generator: it is trained again on parts of its training images, and what they carry is read.

Every part is read by the probes that read the audit's own images, off the same test images, at the sizes that models
read. A part that is finished is kept, so that a killed run goes on with the next one.
"""

import shutil
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from citlr.audit.generation import Counterfactuals
from citlr.audit.measures.readings import read_carried
from citlr.audit.redrawing.drawing import CohortRequest, Drawing
from citlr.audit.results.records import CurvePoint
from citlr.console import Narrator
from citlr.data.cohort import Cohort
from citlr.errors import InputError
from citlr.generators.conditions import Conditions
from citlr.generators.learnt import LearntGenerator
from citlr.generators.probes.probe import Probes
from citlr.invariance.records import Estimate
from citlr.run.files import fingerprint
from citlr.run.rows import Row, Rows

Curves = dict[int, tuple[CurvePoint, ...]]
# What asked for a part that cannot be trained on.
ASKED = "quality.learning_curve asks for {share:g} of the training images"


@dataclass(frozen=True)
class Retraining:
    """The generator of an audit, trained again on parts of its training split.

    - `counterfactuals`: What it draws after training on all of `train`.
    - `seed`: Of the parts, the trainings and the draws.
    """

    counterfactuals: Counterfactuals
    train: Cohort
    validation: Cohort
    hold: Sequence[str]
    seed: int
    narrator: Narrator

    def parts(self, shares: Sequence[float]) -> list[Cohort]:
        """Take parts of whole patients, the smallest first; one that cannot train the generator is refused."""
        return parts_of(self.train, self._generator().conditions, shares, self.seed) if shares else []

    def curves(self, parts: Sequence[Cohort], eyes: Sequence[Probes], directory: Path | None) -> Curves:
        """Give the points of all parts at the size of every probe; what is under way lies in `directory`."""
        with ExitStack() as stack:
            if directory is None:
                directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="citlr-")))
            plan = self.counterfactuals.main.plan
            mark = fingerprint([plan.key, self.seed, [eye.size for eye in eyes]])
            other = "holds the learning curve of other images: move it away and start again."
            rows = Rows(directory / "curve.jsonl", {"key": mark}, other=other)
            for part in parts:
                if len(part) not in [row["images"] for row in rows.lines]:
                    folder = directory / str(len(part))
                    rows.add(self._row(part, eyes, folder))
                    shutil.rmtree(folder)
        return {
            size: tuple(curve_point({**row, "shares": row["shares"][str(size)]}) for row in rows.lines)
            for size in (eye.size for eye in eyes)
        }

    def _row(self, part: Cohort, eyes: Sequence[Probes], folder: Path) -> Row:
        """Train on a part, redraw the test images once, and read what they carry."""
        self.narrator.say(f"quality: learning curve, {len(part)} of {len(self.train)} training images")
        generator = self._generator().untrained()
        generator.fit(part, self.validation, seed=self.seed, directory=folder / "training", narrator=self.narrator)
        cohort, plan = self.counterfactuals.cohort, self.counterfactuals.main.plan
        request = CohortRequest(
            attribute=plan.attribute,
            levels=plan.levels,
            draws=1,
            guidance=plan.guidance,
            shared_seeds=plan.shared_seeds,
            seed=self.seed,
            shard=plan.shard,
        )
        main = Drawing(generator, request, folder, generator.fingerprint(), self.narrator).levels(cohort)
        drawn = replace(self.counterfactuals, generator=generator, main=main, placebo=None, replicates=None, null=None)
        carried = [read_carried(drawn, eye, self.hold, self.narrator) for eye in eyes]
        return {"images": len(part), "shares": {str(one.size): asdict(one)["shares"] for one in carried}}

    def _generator(self) -> LearntGenerator:
        generator = self.counterfactuals.generator
        if not isinstance(generator, LearntGenerator):
            raise InputError(
                f"A learning curve trains the generator again, which {type(generator).__name__} does not offer: leave "
                "quality.learning_curve out."
            )
        return generator


def parts_of(
    train: Cohort, whole: Conditions, shares: Sequence[float], seed: int, *, asked: str = ASKED
) -> list[Cohort]:
    """Take parts of the training split, whose conditions are `whole`; see `Retraining.parts`."""
    found: dict[int, Cohort] = {}
    for share in sorted(shares):
        part = train.fewer(max(1, round(share * len(train))), seed=seed)
        _require_same_values(whole, part, asked.format(share=share), seed)
        found[len(part)] = part
    return [part for size, part in found.items() if size < len(train)]


def curve_point(content: Row) -> CurvePoint:
    """Read a point of a curve back from JSON."""
    return CurvePoint(content["images"], {level: Estimate(**share) for level, share in content["shares"].items()})


def _require_same_values(whole: Conditions, part: Cohort, asked: str, seed: int) -> None:
    """Refuse a part in which a level of the attribute, or of what is held, is missing, or held values determine it."""
    attributes, hold = ([one.name for one in some] for some in (whole.recorded, whole.held))
    try:
        own = Conditions.of(part.frame, attributes=attributes, hold=hold, coin_seed=seed)
    except InputError as error:
        raise InputError(f"{asked}, and {len(part)} cannot train the generator: {error}") from error
    for before, after in zip(whole.variables, own.variables, strict=True):
        if before.levels != after.levels:
            lost = [level for level in before.levels if level not in after.levels]
            what = f"none of '{before.name}' = '{lost[0]}'" if lost else f"too few values of '{before.name}'"
            raise InputError(f"{asked}, and these {len(part)} hold {what}: ask for a larger share.")
