"""Ways in which a test set is none: shared patients, copied images, patients that the generator has seen."""

import hashlib
import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.fft

from citlr.console import QUIET, Narrator
from citlr.data.cohort import Cohort
from citlr.data.pixels.colour import luminance
from citlr.data.pixels.shards import CachePixels
from citlr.data.splits import require_disjoint
from citlr.errors import InputError
from citlr.run.files import atomic_write
from citlr.text import listed_few

# Side of the thumbnail that is transformed, and of the block of low frequencies whose signs are the hash.
THUMBNAIL = 64
BLOCK = 16
# Bits of 255 that a copy may differ in. On the 1000 NIH radiographs, re-encoding (JPEG 60), resizing, contrast, and a
# gamma of 1.2 change at most 18; two images of different patients differ in 54 or more, of one patient in 40 or more.
MAX_DISTANCE = 20
# Rows compared at once: bounds the memory of the distance table to about 64 MiB.
_CHUNK = 2048


@dataclass(frozen=True)
class NearDuplicate:
    """Two images in different splits that look the same.

    - `first`, `second`: Image ids; the first in the earlier split of train, validation, test.
    - `distance`: Bits of the perceptual hash in which they differ.
    """

    first: str
    second: str
    first_split: str
    second_split: str
    distance: int

    def __str__(self) -> str:
        """Say it in one line."""
        return (
            f"{self.first} ({self.first_split}) and {self.second} ({self.second_split}) differ in {self.distance} bits"
        )


def perceptual_hash(images: npt.NDArray[np.float32]) -> npt.NDArray[np.uint64]:
    """Hash images by the signs of their low frequencies against the median.

    The thumbnail's discrete cosine transform is cut to its 16 x 16 lowest frequencies; a bit is set where a coefficient
    lies above the median of all but the constant one. Brightness and contrast do not change it, sharpness hardly does.

    Shapes: `images` (n, c, 64, 64) in [0, 1]; gives (n, 4).
    """
    spectrum = scipy.fft.dctn(luminance(images)[:, 0].astype(np.float64), axes=(1, 2), norm="ortho")
    low = spectrum[:, :BLOCK, :BLOCK].reshape(len(images), -1)
    bits = low > np.median(low[:, 1:], axis=1, keepdims=True)
    bits[:, 0] = False
    return np.packbits(bits, axis=1).view(np.uint64)


def near_duplicates(cohort: Cohort, *, narrator: Narrator = QUIET) -> tuple[NearDuplicate, ...]:
    """Find images that look the same in different splits."""
    if isinstance(cohort.source, CachePixels) and cohort.source.size < THUMBNAIL:
        # Too small to be hashed alike: the files themselves are looked at.
        cohort = replace(cohort, source=None)
    split = cohort.frame["split"].to_numpy()
    hashes = np.zeros((len(cohort), BLOCK * BLOCK // 64), dtype=np.uint64)
    with narrator.progress("hash images", total=len(cohort)) as tick:
        done = 0
        for rows, images in cohort.batches(size=THUMBNAIL, batch_size=64):
            hashes[rows] = perceptual_hash(images)
            done += len(rows)
            tick(done)
    ids = cohort.frame["image_id"].to_numpy()
    pairs: list[NearDuplicate] = []
    for here, there in (("train", "validation"), ("train", "test"), ("validation", "test")):
        left, right = np.flatnonzero(split == here), np.flatnonzero(split == there)
        for first, second, distance in _close(hashes[left], hashes[right]):
            pairs.append(NearDuplicate(str(ids[left[first]]), str(ids[right[second]]), here, there, distance))
    return tuple(sorted(pairs, key=lambda pair: (pair.distance, pair.first, pair.second)))


def _close(left: npt.NDArray[np.uint64], right: npt.NDArray[np.uint64]) -> Iterable[tuple[int, int, int]]:
    for start in range(0, len(left), _CHUNK):
        block = left[start : start + _CHUNK]
        for other in range(0, len(right), _CHUNK):
            part = right[other : other + _CHUNK]
            distance = np.zeros((len(block), len(part)), dtype=np.uint16)
            for word in range(left.shape[1]):
                distance += np.bitwise_count(block[:, None, word] ^ part[None, :, word])
            for first, second in np.argwhere(distance <= MAX_DISTANCE):
                yield start + int(first), other + int(second), int(distance[first, second])


def write_near_duplicates(pairs: Sequence[NearDuplicate], out: str | os.PathLike[str]) -> Path:
    """Write the pairs as `near_duplicates.csv`, the nearest first; a header alone says that there are none."""
    file = Path(out) / "near_duplicates.csv"
    columns = [one.name for one in fields(NearDuplicate)]
    with atomic_write(file) as temporary:
        pd.DataFrame([asdict(pair) for pair in pairs], columns=columns).to_csv(temporary, index=False)
    return file


def fingerprints(patients: Iterable[str]) -> list[str]:
    """Give one-way marks of patients, sorted: a generator's file keeps them instead of identifiers.

    They let it be asked "have you seen this patient?" by those who know the identifier. Identifiers with a short
    pattern can be guessed from their marks, so a file with marks is not anonymous.
    """
    return sorted({hashlib.blake2b(str(name).encode(), digest_size=12).hexdigest() for name in patients})


def require_unseen(test: Cohort, seen: Collection[str], *, what: str = "the generator") -> None:
    """Refuse a test set with patients that something was trained on."""
    marks = set(seen)
    patients = sorted(test.frame["patient_id"].astype(str).unique())
    known = [name for name in patients if fingerprints([name])[0] in marks]
    if known:
        raise InputError(
            f"{len(known)} of the {len(patients)} test patients were in the training set of {what}: "
            f"{listed_few(known)}. Audit patients that it has not seen, or train it anew without them."
        )


def check_leaks(cohort: Cohort, *, seen: Collection[str] = (), narrator: Narrator = QUIET) -> tuple[NearDuplicate, ...]:
    """Go through all three: shared patients and seen test patients are errors, look-alikes are given back and said."""
    require_disjoint(cohort.frame)
    require_unseen(cohort.part("test"), seen)
    pairs = near_duplicates(cohort, narrator=narrator)
    if pairs:
        listed = "; ".join(map(str, pairs[:5])) + (f"; and {len(pairs) - 5} more" if len(pairs) > 5 else "")
        narrator.say(f"Warning: {len(pairs)} pairs of images in different splits look the same: {listed}.")
    return pairs
