"""How an attribute's mean effect differs with what is held: bone stands out less in a view of low contrast.

One term per column of an attribute and column of what is held, `(a - mean a) (h - mean h)`, regressed on what the main
effects leave. Each is multiplied by the share of its size that noise does not explain, `max(0, 1 - noise / size)` (a
positive-part estimate as of James and Stein 1961): what the training split cannot tell from nothing is hardly used.
"""

import numpy as np
import torch
from torch import Tensor, nn

from citlr.generators.conditions import Conditions
from citlr.generators.variables import Variable
from citlr.learning.store import Rows, spans


class JointEffects(nn.Module):
    """Effects of attributes and held covariates together; zeros until they are fitted.

    >>> import pandas as pd
    >>> frame = pd.DataFrame({"patient_id": range(4), "sex": list("FFMM"), "view": ["AP", "PA"] * 2})
    >>> conditions = Conditions.of(frame, attributes=("sex",), hold=("view",), coin_seed=0)
    >>> joint = JointEffects(conditions, 3)
    >>> joint.names
    ('sex x view', 'placebo x view')
    >>> joint(conditions.encode(frame)).abs().max().item()
    0.0
    """

    effects: Tensor
    centres: Tensor

    def __init__(self, conditions: Conditions, entries: int) -> None:
        super().__init__()
        self.pairs = [
            (one, other, f"{attribute.name} x {held.name}")
            for attribute in conditions.attributes
            for held in conditions.held
            for one in _columns(conditions, attribute)
            for other in _columns(conditions, held)
        ]
        self.flags = {
            column: conditions.span(variable.name).stop - 1
            for variable in conditions.variables
            for column in _columns(conditions, variable)
        }
        self.register_buffer("effects", torch.zeros(len(self.pairs), entries))
        self.register_buffer("centres", torch.zeros(conditions.width))
        # Of each term: the share of its size that noise does not explain, known after `fit`.
        self.kept = torch.zeros(len(self.pairs), dtype=torch.float64)

    @property
    def names(self) -> tuple[str, ...]:
        """Attribute and held covariate of each term."""
        return tuple(name for _, _, name in self.pairs)

    def terms(self, codes: Tensor) -> Tensor:
        """Give the products (n, terms) of codes (n, width); zero where one of the two is not recorded."""
        if not self.pairs:
            return codes.new_zeros(len(codes), 0)
        centres = self.centres.to(codes)

        def part(column: int) -> Tensor:
            return (codes[:, column] - centres[column]) * (1 - codes[:, self.flags[column]])

        return torch.stack([part(one) * part(other) for one, other, _ in self.pairs], dim=1)

    def forward(self, codes: Tensor) -> Tensor:
        """Give what the terms add to the mean image, (n, entries)."""
        return self.terms(codes) @ self.effects

    def fit(
        self, pixels: Rows, codes: Tensor, main: Tensor, *, weights: Tensor, where: Tensor, ridge: float = 1.0
    ) -> Tensor:
        """Estimate the terms, and what they take from the main effects.

        Shapes: `pixels` (n, *shape), `codes` (n, width), `main` (width, entries), `weights` (n,) that add up to the
        number of patients, `where` (entries,); gives (width + 1, entries).
        """
        width, entries = main.shape
        if not self.pairs:
            return main.new_zeros(width + 1, entries)
        every, weigh = codes.double(), weights[:, None]
        patients = float(weights.sum())
        average = (weigh * every).sum(dim=0) / patients
        self.centres.copy_(average)
        design, terms = every - average, self.terms(every)
        mean = (weigh * terms).sum(dim=0) / patients
        gram = (weigh * design).T @ design + ridge * torch.eye(width, dtype=torch.float64)
        shared = torch.linalg.solve(gram, (weigh * design).T @ (terms - mean))
        own = terms - mean - design @ shared
        inverse = torch.linalg.inv((weigh * own).T @ own + ridge * torch.eye(len(self.pairs), dtype=torch.float64))
        cross, total = main.new_zeros(len(self.pairs), entries), main.new_zeros(entries)
        square = main.new_zeros(entries)
        for part in spans(len(pixels)):
            rows = torch.from_numpy(np.asarray(pixels[part], dtype=np.float64)).flatten(1) - design[part] @ main
            cross += (weigh * own)[part].T @ rows
            total += (weigh[part] * rows).sum(dim=0)
            square += (weigh[part] * rows.square()).sum(dim=0)
        found = inverse @ cross
        spread = (square - total.square() / patients) / max(1.0, patients - width - len(self.pairs))
        noise = inverse.diagonal() * float((spread * where).sum())
        size = (found.square() * where).sum(dim=1)
        self.kept = (1 - noise / size.clamp_min(1e-300)).clamp(min=0)
        found = self.kept[:, None] * found
        self.effects.copy_(found.float())
        return torch.cat([shared @ found, mean[None] @ found])


def _columns(conditions: Conditions, variable: Variable) -> list[int]:
    """List the columns of a variable's code that its effect hangs on: all levels but the first, or the number."""
    span = conditions.span(variable.name)
    return list(range(span.start + 1, span.stop - 1)) if variable.levels else [span.start]
