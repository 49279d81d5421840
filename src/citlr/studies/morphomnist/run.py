"""`citlr reproduce morphomnist`: the models trained and measured, tables, page and picture."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from citlr.console import Narrator
from citlr.errors import require_known
from citlr.generators.quality.features import Extractor, features_fingerprint, load_extractor
from citlr.generators.registry import load_generator
from citlr.learning.checkpoints import load_module, save_state
from citlr.run.files import read_json, write_json
from citlr.run.rows import Row
from citlr.run.stage import SCRATCH, Stage
from citlr.run.stages import Stages
from citlr.simulators.morphomnist.files import read_mnist
from citlr.simulators.morphomnist.world import ATTRIBUTES, DIGIT, SIZE
from citlr.studies.kit.audits import training_stage
from citlr.studies.kit.page import save_figure, write_page
from citlr.studies.kit.worlds import write_array
from citlr.studies.morphomnist.measure import WIDTH, Measures, Reader, fit_reader, measured, redrawing
from citlr.studies.morphomnist.page import page, picture, sheets
from citlr.studies.morphomnist.study import PRESETS, Effort, Entrant, Study, entrants, open_study

# Digits whose redrawn images are kept for the picture.
PICTURES = 6


def run_morphomnist(
    mnist: str | Path,
    out: str | Path,
    *,
    preset: str = "full",
    models: Sequence[str] = (),
    features: str = "probe",
    into: str | Path | None = None,
    seed: int = 0,
    narrator: Narrator | None = None,
) -> list[Path]:
    """Train every model, measure it by one protocol, and write tables, page and picture; give what was written.

    `into` is a page that is written too, with the picture beside it.
    """
    require_known(preset, PRESETS, f"There is no preset '{preset}'")
    chosen, extractor, digits = entrants(tuple(models)), load_extractor(features), read_mnist(mnist)
    stages, effort = Stages(out, narrator), PRESETS[preset]
    with stages.locked():
        study = open_study(digits, effort, stages, seed)
        reader_key = stages.do(_reader_stage(study, effort, seed, stages.narrator)).key
        measures = _measures(study, effort, stages, extractor, seed)
        inputs = {
            "features": features_fingerprint(features),
            "test": study.test.fingerprint(),
            "effort": asdict(effort),
        }
        rows = [_measure_entrant(measures, entrant, effort, stages, (reader_key,), inputs) for entrant in chosen]
        content = {"preset": preset, "seed": seed, "effort": asdict(effort), "features": measures.features.name}
        return _write(measures, content | {"rows": rows}, stages, into)


def _reader_stage(study: Study, effort: Effort, seed: int, narrator: Narrator) -> Stage:
    splits = (study.train, study.validation)

    def work(folder: Path) -> None:
        reader = fit_reader(splits, steps=effort.reader_steps, seed=seed, directory=folder / SCRATCH, narrator=narrator)
        save_state(folder / "reader.safetensors", reader.state_dict(), {"part": "reader"})

    inputs = {"splits": [part.fingerprint() for part in splits], "steps": effort.reader_steps, "seed": seed}
    return Stage("reader", inputs, work, ("reader.safetensors",))


def _measures(study: Study, effort: Effort, stages: Stages, extractor: Extractor | None, seed: int) -> Measures:
    """Read the reader, draw the test digits and their exact counterfactuals, and take the features of real images."""
    reader = Reader()
    load_module(reader, stages.path("reader.safetensors"))
    reader.eval()
    own = Extractor(f"{WIDTH} features of this run's own reader", reader.features)
    features = own if extractor is None else extractor
    with torch.no_grad():
        real = features(study.train.pixels(size=SIZE))
    true = {
        name: study.test.do(thickness=width, intensity=grey).images() for name, (width, grey) in study.targets.items()
    }
    chosen = np.random.default_rng([seed, 2]).integers(len(ATTRIBUTES), size=len(study.test))
    return Measures(study, study.test.images(), true, reader, features, real, chosen, effort.cycled, seed)


def _measure_entrant(
    measures: Measures, entrant: Entrant, effort: Effort, stages: Stages, after: tuple[str, ...], inputs: dict[str, Any]
) -> Row:
    """Train a model, where there is anything to train, and measure it: two stages."""
    study, name, seed = measures.study, entrant.name, measures.seed
    spent = 0.0
    if entrant.trained:
        options = effort.options.get(entrant.kind, {}) | entrant.options
        settings = {"size": SIZE, "hold": (DIGIT,), "attributes": ATTRIBUTES, **options}
        splits = (study.train, study.validation)
        record = stages.do(training_stage(stages, entrant.kind, settings, splits, seed=seed, name=name))
        spent, after = float(record.facts["core_seconds"]), (*after, record.key)

    def work(folder: Path) -> None:
        stages.narrator.say(f"measuring {name}")
        generator = load_generator(stages.path("models", name)) if entrant.trained else None
        row, changed = measured(measures, redrawing(entrant, generator, study.test))
        write_array(folder / "pictures" / f"{name}.npy", np.stack([changed[each][:PICTURES] for each in ATTRIBUTES]))
        write_json(folder / "rows" / f"{name}.json", {"model": name, "kind": entrant.kind, "fit_seconds": spent, **row})

    places = (f"rows/{name}.json", f"pictures/{name}.npy")
    stages.do(Stage(f"row.{name}", {"model": name, "seed": seed, **inputs}, work, places, after))
    found: Row = read_json(stages.path("rows", f"{name}.json"))
    return found


def _write(measures: Measures, content: Row, stages: Stages, into: str | Path | None) -> list[Path]:
    tables = sheets(content["rows"], measures.features.name)
    for one in tables:
        one.write(stages.path("tables"))
    write_json(stages.path("morphomnist.json"), content)
    redrawn = {}
    for row in content["rows"]:
        kept = np.load(stages.path("pictures", f"{row['model']}.npy"))
        redrawn[row["model"]] = dict(zip(ATTRIBUTES, kept, strict=True))
    figure, lines = picture(measures, redrawn, PICTURES), page(content, tables)
    written = [stages.path("morphomnist.json")]
    for place in (stages.path("morphomnist.md"), *([] if into is None else [Path(into)])):
        written += [write_page(place, lines), save_figure(figure, place.parent / "morphomnist.png")]
    return written
