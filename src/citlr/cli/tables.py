"""Verbs of tables: what can be said of predictions alone, where there are no images."""

from pathlib import Path
from typing import Annotated, Any

import typer

from citlr.cli.options import Json, Label, Map, Seed, Texts, mapping, option, pairs


def assess(
    predictions: Annotated[Path, typer.Argument(help="CSV, TSV, parquet or Excel: docs/predictions.md.")],
    margin: Annotated[float, option("Largest change that does not matter, in (0, 1).")],
    attribute: Annotated[str, option("The attribute whose levels these are, such as sex.")] = "",
    label: Label = None,
    map: Map = None,
    given: Annotated[
        Texts, option("Column that may explain how recorded levels differ, such as the view; may be repeated.")
    ] = None,
    truth: Annotated[
        Texts,
        option(
            "LABEL=COLUMN: the column that says which images have the finding (0 or 1), for the accuracy by "
            "group; repeatable. A long table may have a column 'truth' instead."
        ),
    ] = None,
    outcome: Annotated[str, option("decision or probability.")] = "decision",
    threshold: Annotated[Texts, option("Operating point, or LABEL=NUMBER for every label; .5 without it.")] = None,
    alpha: Annotated[float, option("Error rate: dependence in all, equivalent in each row.")] = 0.05,
    percent: Annotated[bool, option("The numbers are percentages.", "--percent")] = False,
    min_patients: Annotated[int, option("Patients that every recorded level needs.", min=2)] = 20,
    name: Annotated[str, option("What the model is called.")] = "model",
    out: Annotated[Path, option("The folder to write.", "--out", "-o")] = Path("assessment"),
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Audit a table of predictions on counterfactuals that you have made: no images, no generator, no training."""
    from citlr.config import TestConfig, parse_section

    asked: dict[str, Any] = {"margin": margin, "alpha": alpha, "outcome": outcome, "threshold": _thresholds(threshold)}
    settings = parse_section(TestConfig, asked, "assess")
    # After the settings: a typing error is told at once.
    from citlr.audit.conditional import audit_predictions
    from citlr.cli.audits import show
    from citlr.console import Narrator
    from citlr.errors import InputError
    from citlr.exchange.predictions import read_predictions
    from citlr.report.page import render
    from citlr.report.tables import safe_csv
    from citlr.run.files import sha256, write_json, write_text
    from citlr.run.folder import require_no_run
    from citlr.run.machine import versions

    require_no_run(out)
    if not name.strip():
        raise InputError("--name is blank; say what the model is called, or leave the option out.")
    columns = mapping("--map", map, "ours=theirs, such as --map level=sex")
    found = read_predictions(
        predictions,
        attribute=attribute,
        labels=label or (),
        columns=columns,
        given=given or (),
        truth=mapping("--truth", truth, "LABEL=COLUMN, such as --truth edema=edema_truth"),
        percent=percent,
        threshold=settings.threshold,
    )
    if found.responses.number:
        Narrator(quiet=False).say(
            f"The levels {', '.join(found.responses.levels)} are taken for values of a number, such as ages, and get a "
            "curve: where they are codes, write names in their place."
        )
    provenance = {
        "versions": versions(),
        "seed": seed,
        "config": {"test": settings.model_dump(mode="json")},
        "inputs": {"predictions_sha256": sha256(predictions)},
        "model_run": {"where": "elsewhere", "answers": found.answers},
    }
    result = audit_predictions(
        found.responses,
        found.known,
        settings=settings,
        model=name,
        fewest=min_patients,
        seed=seed,
        provenance=provenance,
    )
    write_text(out / "effects.csv", safe_csv(result.to_frame()))
    write_text(out / "audit.html", render(result, responses=found.long))
    write_json(out / "audit.json", result.to_dict())
    show({name: result}, out / "audit.html", as_json)


def observe(
    table: Annotated[Path, typer.Argument(help="CSV, TSV, parquet or Excel, one row per image.")],
    z: Annotated[Path, option("Embeddings: a .npy file, one row for each row of the table, in its order.")],
    attribute: Annotated[str, option("The column of the sensitive attribute.")],
    prediction: Annotated[str, option("The column of the model's probabilities, or decisions.")],
    patient: Annotated[str, option("The column of the patient; without it each image is one.")] = "",
    truth: Annotated[str, option("The column of the finding, 0 or 1: for odds and AUROC gaps.")] = "",
    propensity: Annotated[str, option("The column of a known P(second level | Z).")] = "",
    contrast: Annotated[str, option("The two levels to compare, FIRST=SECOND; every pair without it.")] = "",
    threshold: Annotated[float, option("Operating point of the decisions of equalised odds.")] = 0.5,
    alpha: Annotated[float, option("Error rate of the verdict.")] = 0.05,
    percent: Annotated[bool, option("The predictions are percentages.", "--percent")] = False,
    out: Annotated[Path | None, option("Also write observed.json and observed.csv here.", "--out", "-o")] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Test for a dependence with embeddings and predictions alone; it can never say "equivalent"."""
    import json

    from citlr.exchange.observations import Columns, read_observations
    from citlr.invariance.observational.observe import observe as look
    from citlr.report.tables import safe_csv
    from citlr.run.files import write_json, write_text

    columns = Columns(attribute, prediction, patient, truth, propensity)
    arrays = read_observations(table, z, columns, percent=percent)
    chosen = pairs("--contrast", [contrast] if contrast else None, "FIRST=SECOND, such as F=M")
    found = look(**arrays, contrast=chosen[0] if chosen else None, threshold=threshold, alpha=alpha, seed=seed)
    if out is not None:
        write_text(out / "observed.csv", safe_csv(found.to_frame()))
        write_json(out / "observed.json", found.to_dict())
    print(json.dumps(found.to_dict(), allow_nan=False) if as_json else found)


def _thresholds(given: list[str] | None) -> Any:
    """Read one number, or a number for each label."""
    if not given:
        return 0.5
    if len(given) == 1 and "=" not in given[0]:
        return _number(given[0])
    named = mapping("--threshold", given, "LABEL=NUMBER, or one number")
    return {name: _number(value) for name, value in named.items()}


def _number(text: str) -> float:
    from citlr.errors import InputError

    try:
        return float(text)
    except ValueError:
        raise InputError(f"--threshold '{text}' is no number: give one in (0, 1].") from None


VERBS = (assess, observe)
