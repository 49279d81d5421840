"""What a gate can look at: the redrawn images, the model's outputs, and what was measured of both."""

from dataclasses import dataclass, field

from citlr.audit.generation import Counterfactuals
from citlr.audit.measures.faithfulness import Faithfulness
from citlr.audit.measures.put_back import PutBack
from citlr.audit.results.records import Agreement, Carried, Controls, Unexplained
from citlr.config import GateConfig
from citlr.invariance.records import TestRow
from citlr.invariance.responses import Responses


@dataclass(frozen=True)
class Evidence:
    """What was measured before the gates; a study without a model has the images only.

    - `faithfulness`, `carried`: Of the redrawn images; what they carry at the size that the model reads.
    - `tossable`: Whether a coin can be redrawn; not of images that somebody else has drawn.
    - `retrainable`: Whether the generator can be trained again, on fewer images.
    - `counterfactuals`: The redrawn images themselves, and the cohort whose they are.
    - `responses`, `rows`: Of the model: its outputs, and the tests before any gate.
    - `agreement`, `unexplained`, `put_back`: What it makes of null interventions, of recorded levels, and of
      images that were moved and put back.
    """

    limits: GateConfig
    faithfulness: Faithfulness
    carried: Carried
    controls: Controls = field(default_factory=lambda: Controls(None, (), None))
    coin_passed: bool = False
    tossable: bool = True
    retrainable: bool = True
    counterfactuals: Counterfactuals | None = None
    responses: Responses | None = None
    rows: tuple[TestRow, ...] = ()
    agreement: tuple[Agreement, ...] = ()
    unexplained: tuple[Unexplained, ...] = ()
    put_back: tuple[PutBack, ...] = ()
