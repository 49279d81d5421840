"""What a trained generator does, held against what the cohort itself shows: nothing true is needed.

The guidance that gives an effect of the right size, the mean error that is left, and how exactly inversion inverts.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from citlr.generators.base import Images, batches, check_images
from citlr.generators.conditions import Conditions
from citlr.generators.diffusion.sampling import Sampler
from citlr.generators.diffusion.schedule import ddim_sample
from citlr.generators.effects.recentring import MeanChanges
from citlr.generators.request import Request
from citlr.learning.session import Session
from citlr.learning.store import Dataset, Rows, spans
from citlr.randomness import hashed_seed

# Images that are redrawn to measure the size of the effect; their mean is what is compared.
IMAGES = 48
# A size this near to 1 is left alone: guidance of exactly 1 costs half the time of any other.
TOLERANCE = 0.1
LOWEST, HIGHEST = 0.7, 4.0
LEAST_SLOPE = 0.1
# Images whose mean errors are measured at once.
AT_ONCE = 64


@dataclass(frozen=True)
class Calibration:
    """Guidance, and the size of the mean effect; of sizes 1 is right, and NaN is unknown.

    - `guidance`: What was chosen, 0.7 to 4.
    - `size_at_one`: Measured at guidance 1, see `effect_size`.
    - `size`: At the chosen guidance, on the straight line through the two sizes that were measured.
    """

    guidance: float
    size_at_one: float
    size: float


def effect_size(
    generated: npt.NDArray[np.floating], first: npt.NDArray[np.floating], second: npt.NDArray[np.floating]
) -> float:
    """Size of a generated mean effect along the observed one: 1 is the whole of it.

    The observed mean difference, given the held covariates, is the true mean effect plus sampling noise, and its own
    square is too large by that noise. Two halves of the cohort have noise of their own each, so that
    `<g, (o1 + o2) / 2> / <o1, o2>` is free of it.

    >>> effect_size(np.array([0.5, 0.0]), np.array([1.0, 0.3]), np.array([1.0, -0.3])) > 0.5
    True
    >>> effect_size(np.array([0.5]), np.array([1.0]), np.array([-1.0]))
    nan
    """
    power = float((first * second).sum())
    return float((generated * (first + second) / 2).sum()) / power if power > 0 else float("nan")


def calibrate(sampler: Sampler, train: Dataset, validation: Dataset, session: Session) -> Calibration:
    """Choose the guidance at which the generated mean effect of the first attribute has the size of the observed one.

    The size grows nearly in proportion to the guidance, so two measurements and a straight line are enough:
    `w = 1 + (1 - size(1)) / (size(2) - size(1))`, kept within 0.7 and 4. A size within 0.1 of 1 is left alone.
    """
    conditions = sampler.conditions
    attribute = conditions.attributes[0]
    codes = conditions.encode(train.cohort.frame)
    # Whole patients in either half: images of one patient share their noise.
    side = np.asarray([hashed_seed("half", patient) & 1 for patient in train.cohort.frame["patient_id"]])
    # Only where the intervention may act at all: elsewhere the observed effect is chance.
    where = sampler.support.of([attribute.name])[0, 0].cpu().numpy()
    halves = []
    for half in (0, 1):
        effects = mean_effects(train.pixels, codes, conditions, rows=np.flatnonzero(side == half)).numpy()
        halves.append(
            np.stack([effects[k] - effects[0] for k in range(1, len(attribute.levels))])
            if attribute.levels
            else 2 * effects[:1]  # of a continuous one: from a deviation below the mean to one above
        )
    levels = attribute.levels or (str(attribute.centre - attribute.spread), str(attribute.centre + attribute.spread))
    sampling = sampler.config.sampling
    if sampling.detail == "average":
        # The mean of null interventions is given back under every level: no part of a difference, and half the time.
        sampling = dataclasses.replace(sampling, detail="draw")
        sampler = dataclasses.replace(sampler, config=dataclasses.replace(sampler.config, sampling=sampling))
    rows = np.unique(np.linspace(0, len(validation) - 1, IMAGES).astype(np.int64))
    images, frame = validation.images(rows).numpy(), validation.cohort.frame.iloc[rows].reset_index(drop=True)

    def size_at(guidance: float) -> float:
        request = Request((attribute.name,), levels, seed=session.seed, guidance=guidance, abduction=sampling.abduction)
        redrawn = sampler.redraw(images, frame, request)
        mean = redrawn.mean(axis=(0, 2), dtype=np.float64)
        return effect_size(mean[1:] - mean[0], where * halves[0], where * halves[1])

    with session.narrator.progress("guidance", 2) as tick:
        one = size_at(1.0)
        tick(1, f"size {one:.2f}")
        if abs(one - 1) <= TOLERANCE or not np.isfinite(one):
            return Calibration(1.0, one, one)
        two = size_at(2.0)
        tick(2, f"size {two:.2f}")
    slope = two - one
    # Where the size hardly depends on the guidance, it comes from the alignment, and none would mend it.
    needed = 1 + (1 - one) / slope if np.isfinite(two) and slope > LEAST_SLOPE else 1.0
    guidance = float(np.clip(round(needed, 2), LOWEST, HIGHEST))
    return Calibration(guidance, one, one + slope * (guidance - 1))


def measure_errors(sampler: Sampler, train: Dataset, session: Session) -> tuple[Tensor, int]:
    """Measure by how much an intervention changes residualised images on average, where it should change nothing.

    As many images are redrawn as it takes to be sure (see `MeanChanges`), `recentre` at most; gives their number too.

    Shapes: gives (columns, c * s, s).
    """
    conditions, recentring, most = sampler.conditions, sampler.recentring, sampler.config.effects.recentre or 0
    assert recentring is not None
    drawn = np.random.default_rng(hashed_seed("recentring", session.seed)).permutation(len(train))[:most]
    # In the order of the draw, so that the first of them are a sample too.
    rows = np.concatenate([np.sort(drawn[part]) for part in spans(len(drawn), AT_ONCE)])
    frame = train.cohort.frame.iloc[rows].reset_index(drop=True)
    codes, ids = conditions.encode(frame), frame["image_id"].astype(str).tolist()
    plainly = Request(
        (),
        (),
        seed=hashed_seed("recentring", session.seed),
        guidance=sampler.guidance,
        abduction=sampler.config.sampling.abduction,
    )
    variables = [variable for variable in conditions.attributes if variable.levels]
    requests = [dataclasses.replace(plainly, names=(one.name,), levels=one.levels) for one in variables]
    where = sampler.support.anywhere()[0].repeat(sampler.config.image_channels, 1)
    found, done = MeanChanges(recentring, sampler.uncertainty, where), 0
    with session.narrator.progress("mean error", len(rows)) as tick:
        for part in spans(len(rows), AT_ONCE):
            for chosen, requested, change in sampler.changes(
                train.images(rows[part]), codes[part], ids[part], requests
            ):
                found.add(codes[part][chosen], requested, change)
            done = part.stop
            if found.are_sure():
                tick(done, f"{done} are enough")
                break
            tick(done)
    return found.means(), done


def mean_effects(
    pixels: Rows, codes: Tensor, conditions: Conditions, *, rows: npt.NDArray[np.int64] | None = None
) -> Tensor:
    """Regress pixels or latents on the attributes' and the held covariates' codes; give the attributes' part.

    With the centred codes D and the arrays Z it is the attributes' rows of `(D' D + I)^-1 D' Z`.

    Shapes: `pixels` (n, c, h, w), `codes` (n, width); gives (columns, c, h, w).
    """
    chosen = np.arange(len(pixels)) if rows is None else rows
    columns = conditions.columns(conditions.recorded)
    own = codes[chosen][:, columns].double()
    design = torch.cat([own, codes[chosen][:, conditions.columns(conditions.held)].double()], dim=1)
    design = design - design.mean(dim=0)
    cross = torch.zeros(design.shape[1], int(np.prod(pixels.shape[1:])), dtype=torch.float64)
    for part in spans(len(chosen)):
        cross += design[part].T @ torch.from_numpy(np.array(pixels[chosen[part]], dtype=np.float64)).flatten(1)
    gram = design.T @ design + torch.eye(design.shape[1], dtype=torch.float64)
    effects = torch.linalg.solve(gram, cross)[: len(columns)]
    start = 0
    for variable in conditions.recorded:
        span = slice(start, start + variable.width)
        if variable.levels:
            effects[span] -= own[:, span].mean(dim=0) @ effects[span]
        start = span.stop
    centred: Tensor = effects.float().reshape(-1, *pixels.shape[1:])
    return centred


@dataclass(frozen=True)
class RoundTrip:
    """What is lost between a latent and the same latent inverted and sampled again under its own condition.

    - `latent`: `||z' - z|| / ||z||` over all images; z is the latent that sampling is to end at.
    - `image`: Mean absolute difference of the decoded images, grey values in [0, 1].
    """

    latent: float
    image: float


@torch.no_grad()
def round_trip(sampler: Sampler, images: Images, frame: pd.DataFrame) -> RoundTrip:
    """Invert images (n, c, s, s) by fixed-point iteration, and sample them by DDIM under their factual condition."""
    check_images(images, sampler.config.size, sampler.config.image_channels)
    codes, process = sampler.conditions.encode(frame), sampler.process
    request = Request(("placebo",), (), abduction="inversion")
    error = power = change = 0.0
    for part, rows, filled in batches(images):
        kept, own = part.stop - part.start, codes[rows]
        z = sampler.encode(torch.from_numpy(filled).to(sampler.device), own)
        clean = z if process.restoring else sampler.disentangle(z, own)
        model = sampler.noise_model(own, request, None, 1.0)
        back = ddim_sample(sampler.invert(z, own, request), model, grid=process.grid, table=process.table)
        error += float((back - clean)[:kept].double().square().sum())
        power += float(clean[:kept].double().square().sum())
        ends = [sampler.restore(sampler.decode(one[:, None]), own).clamp(0, 1) for one in (back, clean)]
        change += float((ends[0] - ends[1])[:kept].abs().mean()) * kept
    return RoundTrip((error / power) ** 0.5, change / len(images))
