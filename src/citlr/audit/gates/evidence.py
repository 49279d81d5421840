"""What a gate can look at: the model's outputs, the redrawn images, and what was measured of both."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from citlr.audit.results.records import Agreement, Carried, Controls, Unexplained
from citlr.config import GateConfig
from citlr.invariance.records import TestRow
from citlr.invariance.responses import Responses

# `Answers` are looked at without torch, too.
if TYPE_CHECKING:
    from citlr.audit.generation import Counterfactuals
    from citlr.audit.measures.faithfulness import Faithfulness
    from citlr.audit.measures.put_back import PutBack


@dataclass(frozen=True)
class Answers:
    """What was measured of a model's outputs, with the images or without.

    - `responses`, `rows`: Its outputs, and the tests before any gate; a study without a model has none.
    - `agreement`, `unexplained`: What it makes of null interventions, and of recorded levels.
    """

    limits: GateConfig
    responses: Responses | None = field(default=None, kw_only=True)
    rows: tuple[TestRow, ...] = field(default=(), kw_only=True)
    agreement: tuple[Agreement, ...] = field(default=(), kw_only=True)
    unexplained: tuple[Unexplained, ...] = field(default=(), kw_only=True)


@dataclass(frozen=True)
class Evidence(Answers):
    """What was measured before the gates of an audit that has the images.

    - `faithfulness`, `carried`: Of the redrawn images; what they carry at the size that the model reads.
    - `tossable`: Whether a coin can be redrawn; not of images that somebody else has drawn.
    - `retrainable`: Whether the generator can be trained again, on fewer images.
    - `counterfactuals`: The redrawn images themselves, and the cohort whose they are.
    - `put_back`: What the model makes of images that were moved and put back.
    """

    faithfulness: Faithfulness
    carried: Carried
    controls: Controls = field(default_factory=lambda: Controls(None, (), None))
    coin_passed: bool = False
    tossable: bool = True
    retrainable: bool = True
    counterfactuals: Counterfactuals | None = None
    put_back: tuple[PutBack, ...] = ()
