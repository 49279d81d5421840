"""What a look at many image files tells: which cannot be used, what is white among 16-bit ones, what to remark."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from citlr.data.flow import FlowRecorder
from citlr.data.pixels.shown import BARE_DICOM, DICOM, FAINT, WHITE, Remark, Seen, blank_fault, white_of

# So many images, and such a share of those with 16 bits, are more than a few that are dark.
SOME = (5, 0.05)
# Files whose window was there and showed nothing are told apart from these.
_REPLACED = {Remark.WINDOW, Remark.RESCALE}
# Columns of what decoded files are like, see `Look.marks`: their size in three readings, and their kind.
SIZES, KIND = ("file side", "file size", "file shape"), "file kind"


@dataclass(frozen=True)
class Look:
    """What was seen of one file: why it cannot be used, or else what its pixels are like.

    - `marks`: The longer side in pixels, width x height, which of them is longer, and the kind of the file; by column.
    - `picture`: Digest of the pixels, equal for one picture in several files; of files that are not decoded, a name.
    """

    name: str
    fault: str = ""
    contrast: float = 1.0
    remarks: tuple[Remark, ...] = ()
    peak: int = 0
    marks: Mapping[str, int | str] = field(default_factory=dict)
    picture: str = ""

    @classmethod
    def at(cls, name: str, seen: Seen) -> Self:
        """Keep what there is to say of an image, and not the image."""
        height, width = seen.image.shape[-2:]
        shape = "square" if height == width else "upright" if height > width else "wide"
        sizes = zip(SIZES, (max(height, width), f"{width} x {height}", shape), strict=True)
        marks = {**dict(sizes), KIND: seen.kind}
        picture = hashlib.sha1(f"{seen.image.shape}".encode(), usedforsecurity=False)  # the quickest
        picture.update(seen.image.tobytes())
        return cls(name, "", seen.contrast, seen.remarks, seen.peak, marks, picture.hexdigest())


class Survey:
    """The looks at a set of files, taken together; `scaled`: 16-bit images are scaled by what the whole set needs."""

    def __init__(self, looks: Sequence[Look], *, scaled: bool) -> None:
        self.looks = looks
        # A film that is white all over says nothing of the depth.
        self.peaks = [one.peak for one in looks if one.peak and one.contrast > 0 and not one.fault]
        self.needed = white_of(self.peaks)
        self.white = self.needed if scaled else WHITE

    def faults(self) -> dict[int, str]:
        """Say by row why files cannot be used: they are not readable, or they show nothing."""
        named = ((row, one.fault or blank_fault(one.name, self._span(one))) for row, one in enumerate(self.looks))
        return {row: fault for row, fault in named if fault}

    def shared(self, patients: Sequence[str]) -> list[str]:
        """Name usable pictures that stand for several patients, who would count as that many observations.

        In one file or several; of one patient, a picture may be there twice.
        """
        faults, owners = self.faults(), dict[str, set[str]]()
        seen = [(row, one) for row, one in enumerate(self.looks) if one.picture and row not in faults]
        for row, one in seen:
            owners.setdefault(one.picture, set()).add(str(patients[row]))
        if len(owners) == 1:
            return []  # one picture for all, as of a dry run with a placeholder: no copy among others
        return [one.name for _, one in seen if len(owners[one.picture]) > 1]

    def remark(self, recorder: FlowRecorder, *, of: str = "") -> None:
        """Note in the flow what had to be done to show the usable images; `of` says which were looked at."""
        faults = self.faults()
        kept = [one for row, one in enumerate(self.looks) if row not in faults]
        deep = [one for one in kept if one.peak]
        if self.needed < WHITE:
            then = "is taken as white" if self.white < WHITE else "would be taken as white by the check 'decode'"
            recorder.remark(
                f"{len(deep)}{of} images with 16 bits, none of them above {max(self.peaks):,}: {self.needed:,} {then}",
                [one.name for one in deep],
            )
        low = [one.name for one in deep if white_of([one.peak]) < self.needed and not self._faint(one, Remark.FAINT)]
        if len(low) >= max(SOME[0], SOME[1] * len(deep)):
            recorder.remark(
                f"{len(low)}{of} images with 16 bits whose values would fit in fewer bits than those of others: where "
                "they were written so, they are too dark; write all with one depth",
                low,
            )
        self._remark_mixture(recorder, kept, of)
        for remark in Remark:
            names = [one.name for one in kept if remark in one.remarks or self._faint(one, remark)]
            if names:
                recorder.remark(f"{len(names)}{of} images {remark}", names)

    def _remark_mixture(self, recorder: FlowRecorder, kept: Sequence[Look], of: str) -> None:
        """Tell where some DICOM files are shown by their own window, and others, which have none, by their values."""
        films = [one for one in kept if one.marks.get(KIND) in (DICOM, BARE_DICOM)]
        bare = [one.name for one in films if one.marks[KIND] == BARE_DICOM and not _REPLACED & {*one.remarks}]
        if min(len(bare), len(films) - len(bare)) >= max(SOME[0], SOME[1] * len(films)):
            recorder.remark(
                f"{len(bare)}{of} DICOM images without a window or table of their own, shown between percentiles, "
                "beside others that are shown by theirs: see whether both look alike",
                bare,
            )

    def _span(self, one: Look) -> float:
        return one.contrast * (WHITE / self.white if one.peak else 1.0)

    def _faint(self, one: Look, remark: Remark) -> bool:
        return remark is Remark.FAINT and self._span(one) < FAINT


def looks_of(
    names: Iterable[str], faults: Iterable[str], contrasts: Iterable[float], remarks: Iterable[str]
) -> list[Look]:
    """Give the looks that were kept in the columns of a table; remarks are names with a comma between."""
    columns = zip(names, faults, contrasts, remarks, strict=True)
    return [
        Look(name, fault, span, tuple(Remark[one] for one in noted.split(",") if one))
        for name, fault, span, noted in columns
    ]
