"""The text of a proposed configuration: YAML in which every line says which column is what, and why."""

import os
import re
import shlex
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from citlr.config.model import MODEL_FILES
from citlr.data.cohort import Cohort
from citlr.data.proposals.columns import Column
from citlr.data.proposals.propose import Proposal
from citlr.text import visible

_WIDTH = 110
# Images in grey below which edits are proposed: of some 700 radiographs they left less of a difference than a DLDM did
# (docs/imaging.md), whose networks need more of them.
FEW = 2000
_PLAIN = re.compile(r"[A-Za-z0-9_./](?:[A-Za-z0-9_ ./-]*[A-Za-z0-9_./-])?")


def write_proposal(proposal: Proposal, out: Path, model: str, tried: Cohort | None = None) -> str:
    """Write the text; `tried` is the cohort as it was read by it, whose counts are then told."""
    page = _Page()
    _head(page, proposal, out, closed=not model)
    _cohort(page, proposal, out, tried)
    hold = [*(["view"] if "view" in proposal.columns else []), *(one.name for one in proposal.labels)]
    page.section("generator")
    if proposal.rows < FEW and not proposal.look.in_colour:
        page.entry(
            "kind", "edits",
            f"Changes the original along its anatomy. Of fewer than {FEW} images it carries more of an attribute than "
            "dldm, a diffusion model, the other choice (docs/generators.md)",
        )  # fmt: skip
    side = 64 if proposal.look.longest >= 64 or not proposal.look.longest else 32
    page.entry("size", side, "Pixels a side that are redrawn: 64 trains on two cores, up to 256 with a GPU")
    page.entry("hold", hold, "Kept as observed while the attribute is redrawn; add what else must not change with it")
    _model(page, proposal, out, model)
    page.section("test")
    page.entry("threshold", 0.5, "The model's operating point, one for each finding: {finding: 0.3}")
    page.entry("margin", 0.02, "The largest change of decisions, as a share of the images, that does not matter")
    _others(page, proposal.others)
    return page.text()


class _Page:
    """Lines of YAML, each entry below the comment that says why."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.indent = ""

    def text(self) -> str:
        return "\n".join(self.lines) + "\n"

    def comment(self, text: str) -> None:
        wrapped = textwrap.wrap(" ".join(visible(text).split()), _WIDTH - len(self.indent), break_on_hyphens=False)
        self.lines += [f"{self.indent}# {line}" for line in wrapped]

    def command(self, text: str) -> None:
        self.lines.append(f"#   {visible(text)}")

    def section(self, name: str) -> None:
        self.lines += ["", f"{name}:"]
        self.indent = "  "

    def entry(self, key: str, value: Any, why: str = "") -> None:
        if why:
            self.comment(why)
        self.lines.append(f"{self.indent}{_flow(key)}: {_flow(value)}")


def _flow(value: Any) -> str:
    """Write a value in one line, in quotes where YAML would read something else."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_flow(key)}: {_flow(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if not isinstance(value, str):
        return f"{value:g}" if isinstance(value, float) else str(value)
    if _PLAIN.fullmatch(value) and yaml.safe_load(value) == value:
        return value
    return str(yaml.safe_dump(value, default_style='"', allow_unicode=True, width=10**6)).strip()


def _head(page: _Page, proposal: Proposal, out: Path, *, closed: bool) -> None:
    file = shlex.quote(str(out))
    page.comment(
        f"Proposed by `citlr init` from {proposal.table.name} ({proposal.rows} rows). Above each line stands what it "
        "rests on; correct what is wrong (docs/start.md). Then:"
    )
    then = [(f"citlr audit {file} --out run --until cohort", "who is in, who is left out and why")]
    if closed:
        then += [
            (f"citlr audit {file} --out run --until quality", "trains the generator, redraws, measures"),
            ("citlr export run --out for_the_owner", "pictures and manifest.csv for the model's owner"),
            ("citlr ingest run answers.csv", "the owner's answers: test and report"),
        ]
    else:
        then.append((f"citlr audit {file} --out run", "the whole audit; started again, it goes on"))
    width = max(len(command) for command, _ in then)
    for command, what in then:
        page.command(f"{command:<{width}}  # {what}")
    page.lines += ["", "seed: 0"]


def _cohort(page: _Page, proposal: Proposal, out: Path, tried: Cohort | None) -> None:
    page.section("cohort")
    page.entry("table", _place(proposal.table, out))
    if proposal.images is None:
        page.comment(
            f"A cohort that `citlr prepare` wrote: paths, patients and split are its own. {proposal.look.said}."
        )
    else:
        page.entry("images", _place(proposal.images, out), f"{proposal.look.said}.")
        reasons = [f"{ours} is '{theirs}' ({proposal.why[ours]})" for ours, theirs in proposal.columns.items()]
        page.entry("columns", proposal.columns, f"{'; '.join(reasons)}.")
    _attribute(page, proposal, tried)
    said = "; ".join(f"{one.name}: {one.why}" for one in proposal.labels)
    page.entry("labels", [one.name for one in proposal.labels], f"Findings. {said}.")
    doubtful = [f"{one.name} ({one.uncertain} rows)" for one in proposal.labels if one.uncertain]
    if doubtful and proposal.images is not None:
        page.entry(
            "uncertain", "ignore", f"-1 is read as not stated; or say zeros, or ones. It is in {', '.join(doubtful)}."
        )
    if "view" in proposal.columns:
        page.entry(
            "covariates", ["view"], f"'{proposal.columns['view']}': {proposal.why['view']}. Laterals are left out."
        )
    if proposal.images is None:
        return
    _channels(page, proposal)
    if not proposal.look.square:
        page.entry("fit", "pad", "How images become square: pad (black bars), crop (the centre) or stretch")
    if proposal.split:
        page.entry("split", proposal.split, f"The split is given: {proposal.why['split']}.")
    else:
        page.comment(
            f"{proposal.why['split']}: 65, 10 and 25 % of the patients are drawn as train, validation and test."
        )
        page.entry("split_seed", 0)


def _channels(page: _Page, proposal: Proposal) -> None:
    """Propose red, green and blue where most images have a hue; a few of them are told."""
    look = proposal.look
    if look.in_colour:
        page.entry(
            "channels", 3,
            f"{look.coloured} of {look.opened} images are in colour: red, green and blue are redrawn (docs/colour.md). "
            "Without this line they are read in grey",
        )  # fmt: skip
    elif look.coloured:
        page.comment(
            f"{look.coloured} of {look.opened} images are in colour and are read in grey; channels: 3 would read red, "
            "green and blue."
        )


def _attribute(page: _Page, proposal: Proposal, tried: Cohort | None) -> None:
    attribute = proposal.attribute
    page.entry("attribute", attribute.name, f"What is audited, as you chose: {attribute.summary()}.")
    if attribute.edges:
        page.entry(
            "bins", {attribute.name: attribute.edges}, "A number is compared in groups; these edges are a start."
        )
    if tried is not None:
        page.comment(f"As read, with `citlr`'s exclusions: {_levels(tried, attribute.name)}.")
    page.comment(f"To compare some of the levels only: keep: {{{_flow(attribute.name)}: [one, other]}}")


def _levels(tried: Cohort, attribute: str) -> str:
    """Count images and patients of each level, and patients of the test part."""
    told = []
    for level in tried.levels(attribute):
        rows = tried.frame[tried.frame[attribute] == level]
        test = rows.loc[rows["split"] == "test", "patient_id"].nunique()
        told.append(f"{level} {len(rows)} images of {rows['patient_id'].nunique()} patients ({test} of them in test)")
    return ", ".join(told)


def _model(page: _Page, proposal: Proposal, out: Path, model: str) -> None:
    labels = [one.name for one in proposal.labels]
    page.section("model")
    if not model:
        page.comment("No --model was given: only its owner runs it, and its answers come in as a CSV (docs/closed.md).")
        page.entry("name", "vendor")
        page.entry("kind", "closed")
        page.entry("labels", labels)
        page.comment("The side of the images that the owner's model reads, if it is not that of the generator:")
        page.comment("input: {size: 224}")
        return
    page.entry("source", _source(model, out))
    page.entry("labels", labels, "The names of its outputs, in their order (docs/models.md).")
    if model.partition(":")[0] in ("torchvision", "timm") or ".py:" in model:
        page.comment("The file of its weights, unless its function loads them; an untrained network is refused:")
        page.comment(f"weights: weights{MODEL_FILES['torch'][0]}")
    page.comment(
        "What the model wants to see, and whether it gives logits or probabilities, where its file does not say:"
    )
    page.comment("input: {size: 224, channels: 3, mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225]}")
    page.comment("output: logit")


def _others(page: _Page, others: Sequence[Column]) -> None:
    """Say what was not used, and not understood; no value of these columns is repeated."""
    page.indent = ""
    page.lines.append("")
    if not others:
        return
    kinds = {
        "label": "Other findings", "attribute": "Other attributes", "age": "Ages", "view": "Other views",
        "split": "Other splits", "few": "Few values (to hold one: covariates and generator.hold)", "number": "Numbers",
        "constant": "Blank, or one value", "other": "Not understood",
    }  # fmt: skip
    page.comment("Columns that are not used:")
    for kind, title in kinds.items():
        names = [one.name for one in others if one.kind == kind]
        if names:
            page.comment(f"{title}: {', '.join(names)}.")


def _source(model: str, out: Path) -> str:
    """Write a model as the configuration reads it: its file from the configuration's folder, or an import path."""
    if Path(model).exists():
        return _place(Path(model), out)
    file, colon, name = model.rpartition(":")
    return f"{_place(Path(file), out)}:{name}" if colon and Path(file).is_file() else model


def _place(path: Path, out: Path) -> str:
    """Write a path as the configuration reads it: relative to its own folder where it lies below that."""
    home, there = out.absolute().parent, Path(os.path.abspath(path))  # noqa: PTH100 - links stay links
    return there.relative_to(home).as_posix() or "." if there.is_relative_to(home) else str(there)
