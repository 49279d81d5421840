"""Who was left out, at which step, and why: the flow of a cohort from the table to the study."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from citlr.errors import InputError
from citlr.text import markdown, markdown_table, visible

# Names that a remark lists: it may be of every image of a large set.
REMARKED = 10


@dataclass(frozen=True)
class FlowStep:
    """One step of the flow: what it left out and what remained.

    - `reason`: What the excluded rows had in common, with counts of raw values where they help.
    - `excluded_images`, `excluded_patients`: Left out here; a patient counts once the last of his images is gone.
    - `names`: The excluded images, where a reader needs to find them (unreadable files), or the first that a remark is
      of.
    """

    step: str
    reason: str
    excluded_images: int
    excluded_patients: int
    n_images: int
    n_patients: int
    names: tuple[str, ...] = ()

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Self:
        """Rebuild a step from JSON content."""
        known = {field.name for field in fields(cls)}
        values = {key: value for key, value in content.items() if key in known}
        return cls(**{**values, "names": tuple(values.get("names", ()))})


@dataclass(frozen=True)
class RawCount:
    """How often a raw value of an attribute occurs before and after all exclusions."""

    attribute: str
    raw: str
    level: str
    images_before: int
    images_after: int


def count_raw(attribute: str, before: pd.Series, after: pd.Series, levels: Mapping[str, str]) -> list[RawCount]:
    """Count raw values before and after all exclusions, with the level that each was named."""
    left = after.value_counts()
    return [
        RawCount(attribute, str(raw), levels.get(str(raw), ""), int(count), int(left.get(raw, 0)))
        for raw, count in before.value_counts().items()
    ]


class FlowRecorder:
    """A frame, a row per image, that remembers every exclusion."""

    def __init__(self, frame: pd.DataFrame, *, steps: Sequence[FlowStep] = ()) -> None:
        self.frame = frame
        self.steps: list[FlowStep] = list(steps)

    def start(self, step: str, reason: str) -> None:
        """Note the size of the frame without leaving anything out."""
        self.steps.append(FlowStep(step, visible(reason), 0, 0, len(self.frame), self._patients()))

    def remark(self, reason: str, names: Sequence[str]) -> None:
        """Note something about images that stay, with the names of the first few; the same once only."""
        said = {one.reason.lstrip("0123456789") for one in self.steps}
        if reason.lstrip("0123456789") not in said:
            step = FlowStep("remark", reason, 0, 0, len(self.frame), self._patients(), tuple(names[:REMARKED]))
            self.steps.append(step)

    def keep(self, mask: pd.Series | npt.NDArray[np.bool_], step: str, reason: str, names: Sequence[str] = ()) -> None:
        """Keep the rows where `mask` is true and note the others; nothing is noted where nothing is left out."""
        kept = np.asarray(mask, dtype=bool)
        before, patients = len(self.frame), self._patients()
        if kept.all():
            return
        self.frame = self.frame.loc[kept].reset_index(drop=True)
        excluded = before - len(self.frame)
        now = self._patients()
        reason = visible(reason)
        self.steps.append(FlowStep(step, reason, excluded, patients - now, len(self.frame), now, tuple(names)))
        if not len(self.frame):
            raise InputError(f"The step '{step}' leaves no image: {reason} ({excluded} images left out there).")

    def remarks(self, since: int = 0) -> list[str]:
        """Give the reasons of the steps from one on that left nothing out: how something was read, not who is gone."""
        return [one.reason for one in self.steps[since:] if not one.excluded_images and one.step != "table"]

    def _patients(self) -> int:
        return int(self.frame["patient_id"].nunique()) if "patient_id" in self.frame.columns else 0


def flow_table(steps: Sequence[FlowStep]) -> str:
    """Write the flow as a Markdown table, with the names of unreadable images below it."""
    head = ["step", "reason", "images out", "patients out", "images left", "patients left"]
    rows = [
        (one.step, one.reason, one.excluded_images, one.excluded_patients, one.n_images, one.n_patients)
        for one in steps
    ]
    lines = [markdown_table(head, rows, right=4)]
    for one in steps:
        if one.names:
            what = (
                f"Left out at '{markdown(one.step)}':" if one.excluded_images else f"{markdown(one.reason)}, such as:"
            )
            lines += ["", what, "", *(f"- {markdown(name)}" for name in one.names)]
    return "\n".join(lines)


def raw_table(counts: Sequence[RawCount]) -> str:
    """Write the raw values as a Markdown table.

    >>> print(raw_table([RawCount("sex", "F", "female", 3, 2)]))
    | attribute | raw value | level | images before | images after |
    |---|---|---|---:|---:|
    | sex | F | female | 3 | 2 |
    """
    head = ["attribute", "raw value", "level", "images before", "images after"]
    rows = [(one.attribute, one.raw or "(blank)", one.level, one.images_before, one.images_after) for one in counts]
    return markdown_table(head, rows, right=2)
