"""The chain of an audit in a run folder, from table to result: a stage is made again when its inputs differ."""

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from citlr.audit.assembly import CLOSED, generator_of, held, provenance, quality_settings_of, request_of, unheld_of
from citlr.audit.generation import Counterfactuals, generate_stage
from citlr.audit.measures.faithfulness import Faithfulness, read_faithfulness
from citlr.audit.on_disk import on_disk
from citlr.audit.preconditions import require_learnable, require_possible
from citlr.audit.prediction import check_on_cohort, kind_of_answers, read_responses, side_read, write_responses
from citlr.audit.results.result import AuditResult, read_result
from citlr.audit.results.verdicts import AuditInputs, Settings, audit_responses
from citlr.audit.sources import note_sources
from citlr.audit.stages import (
    COHORT,
    GENERATOR,
    HANDED_ON,
    PICTURES,
    QUALITY,
    RESPONSES,
    RESULT,
    Asked,
    cohort_stage,
    fit_stage,
    images_fingerprint,
    predict_stage,
    quality_stage,
)
from citlr.config.kinds import IMAGES
from citlr.console import Narrator
from citlr.data.cohort import Cohort
from citlr.errors import StateError
from citlr.generators.base import CounterfactualGenerator
from citlr.generators.registry import load_generator
from citlr.predictors.base import Predictor
from citlr.predictors.loading import load_predictor
from citlr.predictors.specs import InputSpec
from citlr.run.engines import Engine
from citlr.run.folder import ANSWERS, Run
from citlr.run.stage import Stage, StageRecord

STAGES = ("cohort", "fit", "generate", "quality", "predict", "test")


class Chain:
    """The stages of one run, with what they hand to each other; `engine` does what falls into shards."""

    def __init__(self, run: Run, narrator: Narrator, engine: Engine | None = None) -> None:
        self.run, self.engine = run, engine and replace(engine, narrator=narrator)
        self.config = run.config
        self.narrator = run.narrator = narrator
        self.keys: dict[str, str] = {}

    def place(self, model: str, name: str) -> str:
        """Return where a model's artefact is, relative to the run: beside all else when there is only one model."""
        return name if len(self.config.models) == 1 else f"models/{model}/{name}"

    def folder(self, model: str) -> Path:
        """Return where a model's artefacts are."""
        return self.run.path(self.place(model, RESULT)).parent

    def artefact(self, stage: str) -> Path:
        """Return what a stage leaves behind."""
        names = dict(zip(STAGES, (COHORT, GENERATOR, PICTURES, QUALITY, RESPONSES, RESULT), strict=True))
        shared = stage not in ("predict", "test") or len(self.config.models) == 1
        return self.run.path(names[stage] if shared else "models")

    def forget(self, stage: str) -> None:
        """Undo a stage and those after it, finished or not; answers that were sent in stay."""
        undone = (*STAGES[STAGES.index(stage) :], "report")
        closed = {record.name for record in self.run.records() if ANSWERS in record.inputs}
        names = {record.name for record in self.run.records()} | {*undone}
        names |= {f"{each}.{model}" for each in ("predict", "test") for model in self.config.models}
        for name in names - closed:
            if name.split(".")[0] in undone:
                self.run.forget(name)

    def upto(self, stage: str) -> None:
        """Run the stages in order, up to and with one."""
        mark = self.run.unfinished
        mark.parent.mkdir(exist_ok=True)
        self.run.keep_history()
        before = mark.exists() or self.run.moved, self.run.stamps()
        mark.touch()
        self.run.require_folders()
        for name in STAGES[: STAGES.index(stage) + 1]:
            getattr(self, name)()
        # A call that finds everything done, by the settings of before, leaves the verdict what it was.
        if stage == "test" or before == (False, self.run.stamps()):
            mark.unlink()

    def do(self, stage: Stage) -> StageRecord:
        """Do a stage in the run's folder, and keep its key for those after it."""
        record = self.run.do(stage)
        self.keys[stage.name] = record.key
        return record

    # The stages.

    def cohort(self) -> None:
        """Read the cohort, and try every model on one batch of it before anything long starts."""
        require_possible(self.config)
        record = self.do(cohort_stage(self.config.cohort, self.narrator))
        require_learnable(self.run, self.whole)
        self.narrator.say(f"cohort: {record.facts['images']} images")
        for note in unheld_of(self.config, self.whole):
            self.narrator.say(note)
        for name in self.config.models:
            if self.predictor(name) is not None:
                for note in check_on_cohort(self.predictor_of(name), self.test_part, size=self.config.generator.size):
                    self.narrator.say(f"{name}: {note}")

    def fit(self) -> None:
        """Train the generator."""
        settings = self.config.generator.model_dump(mode="json")
        build = lambda: generator_of(self.run, self.whole)  # noqa: E731 - built only when it is trained
        if self.config.generator.table is not None:
            # Read on every call: the images are somebody else's, and may have been changed.
            redrawn = generator_of(self.run, self.whole)
            settings = {"kind": IMAGES, "hold": redrawn.hold, "images": redrawn.fingerprint()}
            build = lambda: redrawn  # noqa: E731
        self.do(fit_stage(build, settings, self.splits, seed=self.config.seed, narrator=self.narrator))
        self.narrator.say(
            "fit: the generator is trained" if settings["kind"] != IMAGES else "fit: images are on the disk"
        )

    def generate(self) -> None:
        """Redraw the test images."""
        request = request_of(self.config)
        if self.config.generator.table is not None:
            request = on_disk(request, self._draws())
        generator = lambda: self.generator  # noqa: E731 - read only when it is needed
        stage = generate_stage(generator, self.test_part, request, where=PICTURES, **self._shared_out("fit"))
        record = self.do(stage)
        self.narrator.say(f"generate: {record.facts['images']} test images redrawn under every level")
        for remark in record.facts["remarks"]:
            self.narrator.say(remark)

    def _shared_out(self, before: str) -> dict[str, Any]:
        """Give what a stage takes whose work an engine shares out, and which comes after one that is done."""
        return {"after": (self.keys[before],), "narrator": self.narrator, "engine": self.engine}

    def _draws(self) -> int:
        """Count the draws that somebody else has made of every level."""
        record = self.run.record("fit")
        assert record is not None
        return int(record.facts["report"]["draws"])

    def quality(self) -> None:
        """Measure how faithful the redrawn images are."""
        config, hold = self.config, held(self.run, self.whole)
        settings = quality_settings_of(config.gates, config.quality, hold, self.sizes.values(), config.seed)
        self.do(quality_stage(lambda: self.counterfactuals, self.splits, settings, **self._shared_out("generate")))
        self.narrator.say("quality: " + self.faithfulness.summary())

    def predict(self) -> None:
        """Run every model on originals and redrawn images; of a closed one, ask that its answers are here."""
        for name, settings in self.config.models.items():
            predictor, place = self.predictor(name), self.place(name, RESPONSES)
            if predictor is None:
                self._answers(name)
                continue
            # Whether a pickle may be read says nothing of what is read, which the model's fingerprint does.
            own = settings.model_dump(mode="json", exclude={"name", "source", "weights", "batch_size", "trust"})
            asked, shared = Asked(name, place, own), self._shared_out("generate")
            self.do(predict_stage(predictor, lambda: self.counterfactuals, asked, **shared))
            self.narrator.say(f"predict: {name} is done")

    def _answers(self, name: str) -> None:
        """Take up answers that were sent in, if they are to the pictures of now."""
        record = self.run.record(f"predict.{name}")
        known = None if record is None else str(record.inputs.get(ANSWERS))
        finished = None if known is None else self.run.done(self._answers_stage(name, known, None))
        if finished is None:
            raise StateError(
                f"'{name}' is a closed model and its answers are not here yet, or are to other pictures: run `citlr "
                f"export {self.run.root}`, send the pictures to the model's owner, and bring the answers back with "
                "`citlr ingest`."
            )
        self.keys[f"predict.{name}"] = finished.key

    def _answers_stage(self, name: str, digest: str, frame: pd.DataFrame | None) -> Stage:
        place = self.place(name, RESPONSES)

        def work(folder: Path) -> dict[str, Any]:
            assert frame is not None
            write_responses(folder / place, frame)
            return {"answers_sha256": digest, "answers": kind_of_answers(frame)}

        settings = self.config.models[name].model_dump(mode="json", include={"kind", "labels"})
        inputs = {ANSWERS: digest, "settings": settings, "size": self.sizes[name]}
        return Stage(f"predict.{name}", inputs, work, (place,), (self.keys["generate"],))

    def ingest(self, name: str, frame: pd.DataFrame, answers_sha256: str) -> None:
        """Take accepted answers of a closed model as its responses."""
        self.do(self._answers_stage(name, answers_sha256, frame))

    def test(self) -> None:
        """Test every model's responses."""
        self._require_same_images()
        for name in self.config.models:
            place = self.place(name, RESULT)

            def work(folder: Path, name: str = name, place: str = place) -> dict[str, Any]:
                result = audit_responses(self._inputs(name))
                result.to_json(folder / place)
                return {"verdict": result.verdict}

            inputs = self.config.model_dump(mode="json", include={"test", "gates", "controls", "seed"})
            after = tuple(self.keys[each] for each in ("cohort", "quality", f"predict.{name}"))
            stage = Stage(f"test.{name}", inputs, work, (place,), after)
            self._set_aside(name, stage)
            record = self.do(stage)
            self.run.history.seen()
            self.narrator.say(f"test: {name}: {record.facts['verdict']}")
        note_sources(self.run)

    def _set_aside(self, name: str, stage: Stage) -> None:
        """Rename what was handed on of another audit: beside the new one it would say what that does not.

        An audit that moves, as a run gets a second model or loses it, takes along what was handed on of it.
        """
        before, new = self.run.earlier(stage.name), self.folder(name)
        old = new if before is None else self.run.path(before.places[0]).parent
        same = before is not None and before.stage_key == stage.key
        if same and old == new:
            return
        for file in (folder / one for folder in {new, new if same else old} for one in HANDED_ON.values()):
            if file.is_file():
                aside = file.replace(file.with_name(f"{file.name}.before"))
                self.narrator.say(f"test: {name}: '{aside}' is of the audit before: write it anew with `citlr report`.")
        for one in HANDED_ON.values():
            if (old / one).is_file():
                new.mkdir(parents=True, exist_ok=True)
                (old / one).replace(new / one)

    def _require_same_images(self) -> None:
        """Refuse what was made of two states of the images: they are read at every stage, and digested at the first."""
        record = self.run.record("cohort")
        if record is None or images_fingerprint(self.run.root) != record.discovered:
            raise StateError(
                f"Images of the cohort in '{self.whole.root}' were changed while this run read them: run the same "
                "command again, which makes again what rests on them, and leave the images alone meanwhile."
            )

    def _inputs(self, name: str) -> AuditInputs:
        asked = self.run.record(f"predict.{name}")
        return AuditInputs(
            model=name,
            responses=read_responses(self.run.path(self.place(name, RESPONSES))),
            whole=self.whole,
            counterfactuals=self.counterfactuals,
            faithfulness=self.faithfulness,
            settings=Settings(self.config.test, self.config.gates, self.config.controls, self.config.seed),
            provenance=provenance(self.run, name),
            size=self.sizes[name],
            remarks=() if asked is None else tuple(asked.facts.get("remarks", ())),
        )

    def audited(self) -> bool:
        """Say whether every audit is finished, intact and the last begun, whatever has become of its inputs since."""
        records = [self.run.record(f"test.{name}") for name in self.config.models]
        found = [each for each in records if each is not None and self.run.intact(each) is None]
        self.keys |= {each.name: each.key for each in found}
        return len(found) == len(self.config.models) and not self.run.unfinished.exists()

    # What the stages hand to each other, read when it is first asked for.

    @cached_property
    def whole(self) -> Cohort:
        """The cohort, all splits."""
        return Cohort.from_parquet(self.run.path(COHORT))

    @cached_property
    def splits(self) -> tuple[Cohort, Cohort]:
        """What the generator and the probes learn from: training and validation split."""
        return self.whole.part("train"), self.whole.part("validation")

    @cached_property
    def test_part(self) -> Cohort:
        """The test split: what is audited."""
        return self.whole.part("test")

    @cached_property
    def generator(self) -> CounterfactualGenerator:
        """The trained generator."""
        return load_generator(self.run.path(GENERATOR))

    @cached_property
    def counterfactuals(self) -> Counterfactuals:
        """The redrawn images."""
        return Counterfactuals.open(self.run.path(PICTURES), self.test_part, self.generator)

    @cached_property
    def faithfulness(self) -> Faithfulness:
        """How faithful the redrawn images are."""
        return read_faithfulness(self.run.path(QUALITY))

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Side of the images that each model reads; a closed one says so in its `input`, or reads the generator's."""
        own, found = self.config.generator.size, {}
        for name, model in self.config.models.items():
            predictor = self.predictor(name)
            declared = InputSpec(size=None if model.input is None else model.input.size)
            found[name] = side_read(declared if predictor is None else predictor.input, own)
        return found

    @cached_property
    def _predictors(self) -> dict[str, Predictor | None]:
        return {
            name: None if model.kind == CLOSED else load_predictor(**{**dict(model), "name": name})
            for name, model in self.config.models.items()
        }

    def predictor(self, name: str) -> Predictor | None:
        """Return the model under audit, None for a closed one."""
        return self._predictors[name]

    def predictor_of(self, name: str) -> Predictor:
        """Return the model under audit, which has to be one that runs here."""
        found = self._predictors[name]
        if found is None:
            raise StateError(
                f"'{name}' is a closed model, which its owner runs: bring its answers with `citlr ingest`."
            )
        return found

    def results(self) -> dict[str, AuditResult]:
        """Return the finished audits, by model; one that is damaged or missing is named."""
        for name in self.config.models:
            self.run.require(f"test.{name}", f"run `citlr test {self.run.root}` to make it again")
        return {name: read_result(self.run.path(self.place(name, RESULT))) for name in self.config.models}
