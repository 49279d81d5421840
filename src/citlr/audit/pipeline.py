"""The chain of an audit in a run folder: every stage done once, and resumed where it was cut off."""

from __future__ import annotations

import shutil
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from citlr.run.files import fingerprint, sha256, write_json
from citlr.run.folder import Run
from citlr.audit.assembly import CLOSED, build_predictor, generator_of, provenance, whole_provenance
from citlr.audit.faithfulness import Faithfulness, assess_faithfulness, read_faithfulness
from citlr.audit.generation import Twins, generate, placebo_size
from citlr.audit.intake import take_in
from citlr.audit.prediction import check_on_cohort, kind_of_answers, predict_sets, read_responses, write_responses
from citlr.audit.publish import publish
from citlr.audit.result import AuditResult, read_result
from citlr.audit.verdicts import AuditInputs, Settings, audit_responses
from citlr.console import Narrator
from citlr.data.cohort import Cohort
from citlr.errors import InputError, StateError, did_you_mean
from citlr.generators.base import CounterfactualGenerator, load_generator
from citlr.generators.features import load_extractor
from citlr.predictors.base import Predictor

STAGES = ("cohort", "fit", "generate", "quality", "predict", "test", "report")
# What stages go on from when they were cut off, inside of the run folder.
PARTIAL = {"fit": ("generator", "training"), "generate": ("counterfactuals",), "quality": ("quality", "training")}


def run_audit(run: Run, *, narrator: Narrator | None = None) -> dict[str, AuditResult]:
    """Run every stage that is not done yet, and return the audit of every model by name.

    Parameters
    ----------
    run : Run
        The folder and its configuration.
    narrator : Narrator, optional
        Says what goes on.

    Returns
    -------
    dict of str to AuditResult
        In the order of the configuration.

    Raises
    ------
    CitlrError
        In one sentence; whatever was finished stays, and the same call goes on from there.
    """
    with run.locked():
        chain = Chain(run, narrator or Narrator(quiet=True))
        chain.upto("report")
        return chain.results()


def run_stage(run: Run, stage: str, *, force: bool = False, narrator: Narrator | None = None) -> str:
    """Run the stages up to one, and say what it left behind.

    Parameters
    ----------
    run : Run
        The folder and its configuration.
    stage : {"cohort", "fit", "generate", "quality", "predict", "test", "report"}
        The last stage to run.
    force : bool
        Whether to do that stage again, and with it all that follows from it.
    narrator : Narrator, optional
        Says what goes on.

    Returns
    -------
    str
        A sentence with the artefact's path.
    """
    if stage not in STAGES:
        raise InputError(f"There is no stage '{stage}'.{did_you_mean(stage, STAGES)}")
    with run.locked():
        chain = Chain(run, narrator or Narrator(quiet=True))
        if force:
            chain.forget(stage)
        chain.upto(stage)
    return f"{stage}: done, see {chain.artefact(stage)}"


class Chain:
    """The stages of one run, with what they hand to each other.

    Parameters
    ----------
    run : Run
        The folder and its configuration.
    narrator : Narrator
        Says what goes on.
    """

    def __init__(self, run: Run, narrator: Narrator) -> None:
        self.run = run
        self.config = run.config
        self.narrator = narrator

    # What the stages depend on: each key holds the one before it.

    @cached_property
    def keys(self) -> dict[str, str]:
        """Fingerprint of the inputs of the stages that all models share."""
        config = self.config
        if not config.cohort.table.is_file():
            raise InputError(f"There is no table at '{config.cohort.table}' (cohort.table): correct the path.")
        dumped = config.model_dump(mode="json")
        # At their defaults these change nothing, and runs from before they existed go on.
        usual: dict[str, Any] = {"cache": True, "fit": None, "bins": {}, "combine": []}
        settings = {key: value for key, value in dumped["cohort"].items() if (key, value) not in usual.items()}
        cohort = fingerprint({"cohort": settings, "table": sha256(config.cohort.table)})
        fit = fingerprint({"cohort": cohort, "generator": dumped["generator"], "seed": config.seed})
        placebo = self._placebo_images
        how = {key: value for key, value in dumped["generate"].items() if (key, value) != ("shared_seeds", True)}
        drawn = fingerprint(
            {
                "fit": fit,
                "generate": how,
                "placebo": placebo,
                "replicates": config.controls.replicate_images,
                "seed": config.seed,
            }
        )
        return {
            "cohort": cohort,
            "fit": fit,
            "generate": drawn,
            "quality": fingerprint(
                {"generate": drawn, "probe_steps": config.gates.probe_steps, "quality": dumped["quality"]}
            ),
        }

    @property
    def _placebo_images(self) -> int:
        chosen = self.config.controls.placebo_images
        return placebo_size(self.config.test.margin) if chosen is None else chosen

    def folder(self, model: str) -> Path:
        """Return where a model's artefacts are: the run itself when there is only one."""
        return self.run.folder if len(self.config.models) == 1 else self.run.path("models", model)

    def artefact(self, stage: str) -> Path:
        """Return what a stage leaves behind."""
        names = {
            "cohort": "cohort.parquet",
            "fit": "generator",
            "generate": "counterfactuals",
            "quality": "quality",
            "predict": "responses.parquet",
            "test": "audit.json",
            "report": "audit.html",
        }
        shared = stage in ("cohort", "fit", "generate", "quality", "report") or len(self.config.models) == 1
        return self.run.path(names[stage] if shared else "models")

    def forget(self, stage: str) -> None:
        """Undo the records of a stage and of those after it, and what they would go on from."""
        undone = STAGES[STAGES.index(stage) :]
        for record in self.run.records():
            if record.name.split(".")[0] in undone:
                self.run.path("stages", f"{record.name}.json").unlink()
        for name in undone:
            if name in PARTIAL and self.partial(name).is_dir():
                shutil.rmtree(self.partial(name))

    def partial(self, stage: str) -> Path:
        """Return the folder that a stage goes on from when it was cut off."""
        return self.run.path(*PARTIAL[stage])

    def upto(self, stage: str) -> None:
        """Run the stages in order, up to and with one."""
        for name in STAGES[: STAGES.index(stage) + 1]:
            getattr(self, f"_{name}")()

    def _note(self, text: str) -> None:
        self.narrator.say(text)

    # The stages.

    def _cohort(self) -> None:
        load_extractor(
            self.config.quality.features
        )  # Weights that are not there are found before anything long starts.

        def work() -> dict[str, Any]:
            whole = take_in(self.config.cohort, narrator=self.narrator)
            whole.to_parquet(self.run.path("cohort.parquet"))
            return {"images": len(whole), "table_sha256": sha256(self.config.cohort.table)}

        record = self.run.stage("cohort", self.keys["cohort"], work)
        self._note(f"cohort: {record.facts['images']} images")
        for name in self.config.models:
            # Checked on one batch before anything long starts.
            if self.predictor(name) is not None:
                for note in check_on_cohort(self.predictor_of(name), self.test, size=self.config.generator.size):
                    self._note(f"{name}: {note}")

    def _fit(self) -> None:
        def work() -> dict[str, Any]:
            generator = generator_of(self.run)
            folder = self.run.path("generator")
            train, validation = self.cohort.part("train"), self.cohort.part("validation")
            generator.fit(
                train, validation, seed=self.config.seed, directory=folder / "training", narrator=self.narrator
            )
            generator.save(folder)
            files = sorted(path.name for path in folder.glob("*.safetensors"))
            return {"sha256": {name: sha256(folder / name) for name in files}, "report": dict(generator.report)}

        self.run.stage("fit", self.keys["fit"], work, partial=self.partial("fit"))
        self._note("fit: the generator is trained")

    def _generate(self) -> None:
        config = self.config

        def work() -> dict[str, Any]:
            twins = generate(
                self.generator,
                self.test,
                attribute=config.cohort.attribute,
                draws=config.generate.draws,
                levels=config.cohort.levels,
                guidance=config.generate.guidance,
                shared_seeds=config.generate.shared_seeds,
                placebo_images=self._placebo_images,
                replicate_images=config.controls.replicate_images,
                seed=config.seed,
                out=self.run.path("counterfactuals"),
                shard=config.generate.shard,
                key=self.keys["fit"],
                narrator=self.narrator,
            )
            return {"images": len(twins.main), "placebo_images": 0 if twins.placebo is None else len(twins.placebo)}

        record = self.run.stage("generate", self.keys["generate"], work, partial=self.partial("generate"))
        self._note(f"generate: {record.facts['images']} test images redrawn under every level")

    def _quality(self) -> None:
        def work() -> dict[str, Any]:
            found = assess_faithfulness(
                self.twins,
                self.cohort.part("train"),
                self.cohort.part("validation"),
                hold=self.config.generator.hold,
                probe_steps=self.config.gates.probe_steps,
                features=self.config.quality.features,
                cycles=self.config.quality.cycles,
                seed=self.config.seed,
                directory=self.run.path("quality"),
                narrator=self.narrator,
            )
            found.save(self.run.path("quality"))
            return {}

        self.run.stage("quality", self.keys["quality"], work, partial=self.partial("quality"))
        self._note("quality: " + self.faithfulness.summary())

    def _predict(self) -> None:
        for name in self.config.models:
            predictor = self.predictor(name)
            if predictor is None:
                self._require_answers(name)
                continue

            def work(predictor: Predictor = predictor, name: str = name) -> dict[str, Any]:
                with self.narrator.progress(f"predict {name}", len(self.twins.main)) as tick:
                    frame = predict_sets(
                        predictor, self.twins.sets, self.test, folder=self.folder(name) / "responses", tick=tick
                    )
                write_responses(self.folder(name) / "responses.parquet", frame)
                return {"model_sha256": predictor.fingerprint(), "answers": kind_of_answers(frame)}

            self.run.stage(f"predict.{name}", self._predict_key(name, predictor.fingerprint()), work)
            self._note(f"predict: {name} is done")

    def _predict_key(self, name: str, model: str) -> str:
        settings = self.config.models[name].model_dump(mode="json", exclude={"source", "weights", "batch_size"})
        return fingerprint({"generate": self.keys["generate"], "settings": settings, "model": model})

    def _require_answers(self, name: str) -> None:
        record = self.run.record(f"predict.{name}")
        if record is None or record.key != self._predict_key(name, str(record.facts.get("answers_sha256"))):
            raise StateError(
                f"'{name}' is a closed model and its answers are not here yet: run `citlr export {self.run.folder}`, "
                f"send the pictures to the model's owner, and bring the answers back with `citlr ingest`."
            )

    def ingest(self, name: str, frame: pd.DataFrame, answers_sha256: str) -> None:
        """Take accepted answers of a closed model as its responses."""

        def work() -> dict[str, Any]:
            write_responses(self.folder(name) / "responses.parquet", frame)
            return {"answers_sha256": answers_sha256, "answers": kind_of_answers(frame)}

        self.run.stage(f"predict.{name}", self._predict_key(name, answers_sha256), work)

    def _test(self) -> None:
        for name in self.config.models:

            def work(name: str = name) -> dict[str, Any]:
                result = audit_responses(self._inputs(name))
                result.to_json(self.folder(name) / "audit.json")
                return {"verdict": result.verdict}

            record = self.run.stage(f"test.{name}", self._test_key(name), work)
            self._note(f"test: {name}: {record.facts['verdict']}")

    def _test_key(self, name: str) -> str:
        predicted = self.run.record(f"predict.{name}")
        dumped = self.config.model_dump(mode="json", include={"test", "gates", "controls", "seed"})
        return fingerprint({"predict": None if predicted is None else predicted.key, "settings": dumped})

    def _inputs(self, name: str) -> AuditInputs:
        return AuditInputs(
            model=name,
            responses=read_responses(self.folder(name) / "responses.parquet"),
            whole=self.cohort,
            test=self.test,
            twins=self.twins,
            faithfulness=self.faithfulness,
            settings=Settings(self.config.test, self.config.gates, self.config.controls, self.config.seed),
            provenance=provenance(self.run, name),
        )

    def _report(self) -> None:
        key = fingerprint(
            {
                "tests": [self._test_key(name) for name in self.config.models],
                "report": self.config.report.model_dump(mode="json"),
            }
        )

        def work() -> dict[str, Any]:
            folders = {name: self.folder(name) for name in self.config.models}
            publish(self.run.folder, folders, self.results(), self.twins, report=self.config.report)
            return {}

        fresh = self.run.done("report", key)
        self.run.stage("report", key, work)
        record = self.run.path("provenance.json")
        if not (fresh and record.is_file()):  # else it would name the versions of a later look, not of the audit
            write_json(record, whole_provenance(self.run))
        self._note(f"report: {self.artefact('report')}")

    # What the stages hand to each other, read when it is first asked for.

    @cached_property
    def cohort(self) -> Cohort:
        """The cohort, all splits."""
        return Cohort.from_parquet(self.run.path("cohort.parquet"))

    @cached_property
    def test(self) -> Cohort:
        """The test split: what is audited."""
        return self.cohort.part("test")

    @cached_property
    def generator(self) -> CounterfactualGenerator:
        """The trained generator."""
        return load_generator(self.run.path("generator"))

    @cached_property
    def twins(self) -> Twins:
        """The redrawn images."""
        return Twins.open(self.run.path("counterfactuals"), self.test, self.generator)

    @cached_property
    def faithfulness(self) -> Faithfulness:
        """How faithful the redrawn images are."""
        return read_faithfulness(self.run.path("quality"))

    @cached_property
    def _predictors(self) -> dict[str, Predictor | None]:
        return {
            name: None if model.kind == CLOSED else build_predictor(name, model)
            for name, model in self.config.models.items()
        }

    def predictor(self, name: str) -> Predictor | None:
        """Return the model under audit, None for a closed one."""
        return self._predictors[name]

    def predictor_of(self, name: str) -> Predictor:
        """Return the model under audit, which has to be one that runs here."""
        found = self._predictors[name]
        if found is None:
            raise StateError(f"'{name}' is a closed model: it cannot be run here.")
        return found

    def results(self) -> dict[str, AuditResult]:
        """Return the finished audits, by model."""
        return {name: read_result(self.folder(name) / "audit.json") for name in self.config.models}
