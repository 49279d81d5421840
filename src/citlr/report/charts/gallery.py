"""Counterfactual strips: the original, the null intervention, every counterfactual and the signed difference maps."""

import base64
import io
import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from citlr.errors import InputError

Picture = NDArray[np.uint8]
# Okabe and Ito's blue and vermilion, darkened at the ends; white is "unchanged".
DIVERGING = ("#00304f", "#0072b2", "#8cc0e0", "#ffffff", "#f0b285", "#d55e00", "#6e2c00")
_STEPS = 129  # colours of a map: odd, so that "unchanged" has its own


@dataclass(frozen=True, eq=False)
class Strip:
    """One image with its counterfactuals; the redrawing at the factual level is the null intervention.

    - `caption`: Shown under the strip as it is given: never put an identifier or a path into it.
    - `factual`: The level that the original image has.
    - `original` (H, W), or (H, W, 3) in colour
    - `levels` of the same shape: The image redrawn under each level; `factual` must be one of them.
    """

    caption: str
    factual: str
    original: Picture
    levels: dict[str, Picture]

    def __post_init__(self) -> None:
        if self.factual not in self.levels:
            known = ", ".join(self.levels) or "none"
            raise InputError(
                f"The strip '{self.caption}' has no image redrawn at its factual level '{self.factual}' "
                f"(levels: {known}); add the null intervention."
            )
        for name, image in {"original": self.original, **self.levels}.items():
            grey_or_rgb = image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)
            if image.dtype != np.uint8 or not grey_or_rgb or image.shape != self.original.shape:
                raise InputError(
                    f"The strip '{self.caption}' holds '{name}' as {image.dtype} of shape {image.shape}; "
                    f"it takes uint8 images of one shape (H, W), or (H, W, 3)."
                )

    @property
    def null(self) -> Picture:
        """The image redrawn at its own level."""
        return self.levels[self.factual]

    @property
    def counterfactuals(self) -> tuple[str, ...]:
        """The levels other than the factual one."""
        return tuple(level for level in self.levels if level != self.factual)


@dataclass(frozen=True, eq=False)
class Gallery:
    """The strips of a report, of one attribute; `note` is shown above them, such as how the images were chosen."""

    strips: tuple[Strip, ...]
    attribute: str
    note: str = ""

    @property
    def scale(self) -> float:
        """The difference that the ends of the colour map stand for: 99.5 % of all changed pixels lie within it."""
        largest = [
            float(np.quantile(np.abs(signed_difference(strip.levels[level], strip.null)), 0.995))
            for strip in self.strips
            for level in strip.counterfactuals
        ]
        return max(0.05, math.ceil(max(largest, default=0.0) / 0.05 - 1e-9) * 0.05)


def signed_difference(counterfactual: Picture, null: Picture) -> NDArray[np.float32]:
    """Subtract the null intervention from a counterfactual: do(a') - do(a).

    Both are generated, so the reconstruction error of the generator cancels; the original would bring it in.
    """
    return (counterfactual.astype(np.float32) - null.astype(np.float32)) / np.float32(255.0)


@lru_cache(maxsize=1)
def _palette() -> NDArray[np.uint8]:
    """Interpolate the diverging map, shape (129, 3): blue is darker, white unchanged, vermilion brighter."""
    anchors = np.array([[int(code[i : i + 2], 16) for i in (1, 3, 5)] for code in DIVERGING], float)
    where = np.linspace(0, len(anchors) - 1, _STEPS)
    channels = [np.interp(where, np.arange(len(anchors)), anchors[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=1).round().astype(np.uint8)


def _steps(difference: NDArray[np.floating], scale: float) -> NDArray[np.uint8]:
    if not scale > 0:
        raise InputError(f"The scale of a difference map must be above 0; it is {scale}.")
    middle = (_STEPS - 1) // 2
    steps: NDArray[np.uint8] = (np.clip(difference / scale, -1, 1) * middle + middle).round().astype(np.uint8)
    return steps


@dataclass(frozen=True)
class Tile:
    """One picture of a strip, ready for the page: a data URI with its size, heading and alternative text."""

    uri: str
    width: int
    height: int
    heading: str
    role: str  # original | null | counterfactual | difference
    alt: str

    @property
    def shown(self) -> str:
        """The heading as the page writes it."""
        return self.heading if self.role in ("original", "difference") else f"do({self.heading})"

    @property
    def what(self) -> str:
        """What kind of picture it is, in words."""
        return _WHAT[self.role]

    @property
    def name(self) -> str:
        """Heading and kind, as the slider's choice names it."""
        return f"{self.shown}, {self.what}"


_WHAT = {
    "original": "as recorded",
    "null": "null intervention",
    "counterfactual": "counterfactual",
    "difference": "signed difference",
}


@dataclass(frozen=True)
class StripView:
    """A strip as the page shows it."""

    caption: str
    factual: str
    tiles: tuple[Tile, ...]


@dataclass(frozen=True)
class GalleryView:
    """The gallery as the page shows it: strips, the scale of the maps with its colour bar, how it was stored.

    Of images in colour there is no bar: their maps show every channel around mid-grey.
    """

    strips: tuple[StripView, ...]
    attribute: str
    note: str
    scale: float
    colour_bar: str
    storage: str


# Tried in order until the gallery fits: (largest side in pixels, JPEG quality or None for lossless PNG, what is said).
_LADDER: tuple[tuple[int, int | None, str], ...] = (
    (512, None, "They are stored losslessly, as PNG."),
    (512, 90, "To keep the page small, images are stored as JPEG (quality 90); difference maps are lossless."),
    (256, 85, "To keep the page small, images are stored as JPEG (quality 85), at most 256 pixels a side."),
    (160, 80, "To keep the page small, images are stored as JPEG (quality 80), at most 160 pixels a side."),
    (112, 75, "To keep the page small, images are stored as JPEG (quality 75), at most 112 pixels a side."),
)


def encode(gallery: Gallery, *, budget: int = 5_000_000) -> GalleryView:
    """Encode a gallery for the page in at most `budget` bytes where the smallest encoding allows it.

    Difference maps are computed at full size from the images themselves, before any lossy step.
    """
    scale = gallery.scale
    for step in _LADDER:
        side, quality, storage = step
        strips = tuple(_strip(strip, gallery.attribute, scale, side, quality) for strip in gallery.strips)
        if sum(len(tile.uri) for strip in strips for tile in strip.tiles) <= budget:
            break
    colour = any(strip.original.ndim == 3 for strip in gallery.strips)
    bar = "" if colour else _png_map(np.linspace(-1, 1, _STEPS)[None, :], 1.0, _STEPS)
    pictures = [len(tile.uri) for strip in strips for tile in strip.tiles]
    said = f"{len(pictures)} pictures take {sum(pictures) / 1e6:.1f} MB of this page. {storage}"
    return GalleryView(strips, gallery.attribute, gallery.note, scale, bar, said)


def _strip(strip: Strip, attribute: str, scale: float, side: int, quality: int | None) -> StripView:
    where = f"of the image {strip.caption}"
    what, values = ("radiograph", "grey values") if strip.original.ndim == 2 else ("picture", "red, green and blue")

    def tile(image: Picture, heading: str, role: str, alt: str) -> Tile:
        uri, (width, height) = _picture_uri(image, side, quality)
        return Tile(uri, width, height, heading, role, alt)

    tiles = [
        tile(strip.original, "original", "original", f"Original {what} {where}, {attribute} {strip.factual}."),
        tile(
            strip.null,
            strip.factual,
            "null",
            f"Null intervention {where}: redrawn at its own {attribute}, {strip.factual}.",
        ),
    ]
    for level in strip.counterfactuals:
        change = signed_difference(strip.levels[level], strip.null)
        tiles.append(tile(strip.levels[level], level, "counterfactual", f"Counterfactual {where}: redrawn as {level}."))
        alt = (
            f"Signed difference map {where}: {level} minus {strip.factual}; {values} change by "
            f"{np.abs(change).mean() * 100:.1f} % on average and {np.abs(change).max() * 100:.0f} % at most."
        )
        shape = _fit(change.shape[1], change.shape[0], side)
        tiles.append(Tile(_png_map(change, scale, side), *shape, f"{level} − {strip.factual}", "difference", alt))
    return StripView(strip.caption, strip.factual, tuple(tiles))


def _fit(width: int, height: int, side: int) -> tuple[int, int]:
    factor = min(1.0, side / max(width, height))
    return max(1, round(width * factor)), max(1, round(height * factor))


def _picture_uri(image: Picture, side: int, quality: int | None) -> tuple[str, tuple[int, int]]:
    picture = Image.fromarray(image)
    size = _fit(*picture.size, side)
    if size != picture.size:
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    if quality is None:
        picture.save(buffer, "PNG", optimize=True)
        return _uri(buffer, "png"), size
    picture.save(buffer, "JPEG", quality=quality, optimize=True)
    return _uri(buffer, "jpeg"), size


def _png_map(difference: NDArray[np.floating], scale: float, side: int) -> str:
    size = _fit(difference.shape[1], difference.shape[0], side)
    buffer = io.BytesIO()
    if difference.ndim == 3:
        around = np.clip(0.5 + difference / (2 * scale), 0, 1)
        shown = Image.fromarray((255 * around).round().astype(np.uint8)).resize(size, Image.Resampling.BOX)
        shown.save(buffer, "PNG", optimize=True)
        return _uri(buffer, "png")
    if size != (difference.shape[1], difference.shape[0]):
        resized = Image.fromarray(difference.astype(np.float32)).resize(size, Image.Resampling.BOX)
        difference = np.asarray(resized)
    picture = Image.fromarray(_steps(difference, scale)).convert("L")
    picture.putpalette(_palette().ravel().tolist())
    picture.save(buffer, "PNG", optimize=True)
    return _uri(buffer, "png")


def _uri(buffer: io.BytesIO, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
