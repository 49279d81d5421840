"""What is called of a generator: `fit`, `generate` and `edit` check their arguments, and a subclass gets one record."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pandas as pd

from citlr.console import Narrator, Ticker, silent
from citlr.data.cohort import Cohort
from citlr.data.edits import Edit
from citlr.errors import InputError
from citlr.generators.base import Images, Levels, Names, check_images
from citlr.generators.request import Request, check_levels


@dataclass(frozen=True)
class Lesson:
    """What a generator is to learn from, see `Redrawing.fit`."""

    train: Cohort
    validation: Cohort | None
    seed: int
    directory: Path | None
    narrator: Narrator


class Redrawing(ABC):
    """A generator; a subclass gives `redraw`, and `learn_from` if it is to be trained."""

    size: int

    @property
    def channels(self) -> int:
        """Channels of its images: 1 of grey, 3 of colour."""
        return 1

    def fit(
        self,
        train: Cohort,
        validation: Cohort | None = None,
        *,
        seed: int = 0,
        directory: Path | None = None,
        narrator: Narrator | None = None,
    ) -> Self:
        """Train all parts; what needs no training stays as it is.

        Parameters
        ----------
        train, validation : Cohort
            Splits; validation is for early stopping and the choice of the guidance. Without it a tenth of the training
            patients, drawn by the seed, is set aside.
        seed : int
            Same seed, same data, same machine: same bits.
        directory : Path, optional
            For checkpoints and caches. An interrupted call with the same arguments goes on from there and ends with the
            same bits. Without it, decoded images and latents are kept in memory.
        narrator : Narrator, optional
            Shows the progress.

        Returns
        -------
        Self
            The generator itself.

        Raises
        ------
        InputError
            If a column is missing, an attribute has one level, or the images do not fit.
        StateError
            If a loss stops being a number.
        """
        return self.learn_from(Lesson(train, validation, seed, directory, narrator or Narrator()))

    def learn_from(self, lesson: Lesson) -> Self:
        """Learn; as it stands here, there is nothing to learn."""
        return self

    def generate(
        self,
        images: Images,
        frame: pd.DataFrame,
        *,
        attribute: Names,
        levels: Levels,
        draws: int = 1,
        seed: int = 0,
        guidance: float | None = None,
        shared_seeds: bool = True,
        abduction: str | None = None,
        tick: Ticker = silent,
    ) -> Images:
        """Redraw images under each level.

        Parameters
        ----------
        images : ndarray of float32, shape (n, channels, size, size), in [0, 1]
        frame : DataFrame
            The cohort's rows of these images: image_id, patient_id, attributes, held covariates.
        attribute : str or sequence of str
            What is intervened on; several names mean a joint intervention, whose levels are tuples.
        levels : sequence
            Levels to redraw under, the factual one among them as a rule (the null intervention). Of an attribute that
            is a number, a level may be an array of shape (n,): a value for each image.
        draws : int
            Images per level; draw r of an image is a function of (seed, image_id, r) only.
        seed : int
            Seed of the noise.
        guidance : float, optional
            Weight of the intervened attribute's condition; the generator's own without it.
        shared_seeds : bool
            Whether draw r starts from the same noise under every level.
        abduction : {"noise", "inversion"}, optional
            Whether what is unknown of an image is drawn at random, or inferred from it, which gives one draw; as the
            generator was configured without it.
        tick : Ticker
            Called with the number of images done.

        Returns
        -------
        ndarray of float32, shape (n, len(levels), draws, channels, size, size), in [0, 1]
        """
        request = self._request(
            images,
            attribute,
            levels,
            draws=draws,
            seed=seed,
            guidance=guidance,
            shared_seeds=shared_seeds,
            abduction=abduction,
        )
        return self.redraw(images, frame, request, tick)

    def _request(
        self, images: Images, attribute: Names, levels: Levels, guidance: float | None, **others: Any
    ) -> Request:
        """Check the arguments, and make them one record."""
        check_images(images, self.size, self.channels)
        names = (attribute,) if isinstance(attribute, str) else tuple(attribute)
        request = Request(names, tuple(levels), guidance=None if guidance is None else float(guidance), **others)
        if not levels or request.draws < 1:
            raise InputError(
                f"{len(levels)} levels and {request.draws} draws were asked for; at least one of each is needed."
            )
        check_levels(levels, len(images))
        return request

    @abstractmethod
    def redraw(self, images: Images, frame: pd.DataFrame, request: Request, tick: Ticker = silent) -> Images:
        """Redraw images as a request asks: (n, levels, draws, channels, size, size) in [0, 1]."""


class Editing(Redrawing):
    """A generator of edits of the original, see `citlr.generators.base.EditingGenerator`; a subclass gives `change`."""

    def edit(
        self, images: Images, frame: pd.DataFrame, *, attribute: Names, levels: Levels, guidance: float | None = None
    ) -> Edit:
        """Give the edits (n, len(levels), ...) of images (n, c, size, size) in [0, 1] under each level."""
        return self.change(images, frame, self._request(images, attribute, levels, guidance))

    @abstractmethod
    def change(self, images: Images, frame: pd.DataFrame, request: Request) -> Edit:
        """Give the edits (n, levels, ...) that a request asks for."""
