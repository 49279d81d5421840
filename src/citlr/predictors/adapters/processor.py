"""What a Hugging Face image processor does to an image, in the words of `InputSpec`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from citlr.errors import InputError
from citlr.text import shown

_BILINEAR = 2


def card_input(
    processor: Mapping[str, Any], config: Mapping[str, Any], model: str, declared: Collection[str] = ()
) -> dict[str, Any]:
    """Give size, channels, grey scale, mean and std of a processor and its network, but for what was declared."""
    spec: dict[str, Any] = {"channels": config.get("num_channels", 3)}
    factor = processor.get("rescale_factor", 1 / 255) if processor.get("do_rescale", True) else 1.0
    if isinstance(factor, bool) or not isinstance(factor, int | float):
        raise InputError(f"Model '{model}' has the rescale_factor {shown(factor)} in its processor: declare input.")
    # EfficientNet's processor maps to [-1, 1].
    below = 1.0 if processor.get("rescale_offset") else 0.0
    spec |= {"low": -below, "high": round(255.0 * factor, 6) - below}
    if processor.get("do_normalize", "image_mean" in processor):
        for ours, theirs in (("mean", "image_mean"), ("std", "image_std")):
            if theirs not in processor and ours not in declared:
                raise InputError(
                    f"Model '{model}' says nothing of {theirs} in its processor: declare it, input: {{{ours}: ...}}."
                )
            spec[ours] = processor.get(theirs)
    if "size" not in declared:
        spec["size"] = _size(processor, config, model)
    return {name: value for name, value in spec.items() if value is not None}


def input_remarks(processor: Mapping[str, Any], model: str) -> tuple[str, ...]:
    """Say where images are prepared in another way than by the processor."""
    told = []
    if processor.get("do_center_crop") or processor.get("crop_pct") not in (None, 1, 1.0):
        told.append("it cuts out the centre, and here the whole image is shown at the size of that")
    if processor.get("resample", _BILINEAR) != _BILINEAR:
        told.append("it does not resize bilinearly, and here images are")
    return tuple(f"The image processor of model '{model}' is not followed in all: {one}." for one in told)


def _size(processor: Mapping[str, Any], config: Mapping[str, Any], model: str) -> tuple[int, int]:
    """Find what the network sees: the crop, else what is resized to, else the size it was built for."""
    cropped = processor.get("crop_size") if processor.get("do_center_crop") else None
    given = cropped or (processor.get("size") if processor.get("do_resize", True) else None) or config.get("image_size")
    found: Any = given
    if isinstance(given, Mapping):
        edge = given.get("shortest_edge")
        found = (given.get("height", edge), given.get("width", edge))
    sides = tuple(found) if isinstance(found, list | tuple) else (found, found)
    if len(sides) != 2 or not all(isinstance(side, int) and not isinstance(side, bool) for side in sides):
        raise InputError(f"Model '{model}' has the size {shown(given)} in its processor: declare input: {{size: 224}}.")
    return (int(sides[0]), int(sides[1]))
