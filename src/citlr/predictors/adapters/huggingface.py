"""Local Hugging Face folders of image classifiers as models under audit; nothing is downloaded, and no code is run."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from citlr.errors import InputError, needed
from citlr.predictors.adapters.torch import TorchPredictor
from citlr.predictors.content import digest
from citlr.predictors.declared import Declared
from citlr.predictors.foreign import one_sentence, require_same
from citlr.predictors.specs import InputSpec
from citlr.predictors.weights import require_whole, warn_trusted
from citlr.run.files import digest_or_missing, fingerprint
from citlr.text import shortened, shown

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


CONFIG, PROCESSOR, ADAPTER = "config.json", "preprocessor_config.json", "adapter_config.json"
# As transformers saves weights: whole, or in parts that an index lists.
_SAFE, _PICKLED = ("model.safetensors", "model.safetensors.index.json"), "pytorch_model.bin"
# Rounding to 8 bits on the way leaves less.
_SAME = 0.01
_ACTIVATIONS = {"multi_label_classification": "sigmoid", "single_label_classification": "softmax"}


def read(folder: Path, declared: Declared) -> TorchPredictor:
    """Read a folder of config.json, weights and preprocessor_config.json; what it does not say has to be declared."""
    if (folder / ADAPTER).is_file():
        # Where peft is not installed, transformers leaves it out without a word.
        raise InputError(
            f"Model '{folder}' holds an adapter to its weights, such as LoRA ({ADAPTER}): merge both (peft: "
            "merge_and_unload) and save that network as the folder, without the adapter."
        )
    if not (folder / CONFIG).is_file():
        raise InputError(
            f"Model '{folder}' is a folder; give a file, a Hugging Face folder ({CONFIG}, {_SAFE[0]}, {PROCESSOR}), or "
            "a MONAI bundle (configs/metadata.json)."
        )
    said = _said(folder)
    config = read_part(folder / CONFIG)
    if "auto_map" in config:
        raise InputError(
            f"Model '{folder}' brings code of its own (auto_map in its {CONFIG}), which is not run from a folder: "
            "write a file.py with a function that makes the model, and name file.py:function."
        )
    safe = _has_safe_weights(folder, declared)
    card: dict[str, Any] = {}
    processor: Mapping[str, Any] = {}
    if (folder / PROCESSOR).is_file():
        processor = read_part(folder / PROCESSOR)
        known = () if declared.input is None else declared.input.model_fields_set
        card["input"] = card_input(processor, config, str(folder), known)
    elif declared.input is None:
        raise InputError(
            f"Model '{folder}' has no {PROCESSOR}, which says size, mean and std: copy it there, or declare input."
        )
    if declared.output is None or config.get("problem_type") in _ACTIVATIONS:
        card["output"] = {"kind": "logit", "activation": _activation(config, folder)}
    labels = _labels(config, folder)
    settings = declared.settings(folder.name, {**card, "labels": labels} if labels else card)
    network, release = _network(folder, safe=safe)
    # who declares a part of what it makes of grey values answers for it
    own = not processor or any(declared.says(name) for name in ("low", "high", "mean", "std"))
    tried = () if own else _require_prepared(folder, settings["input"])
    require_same(_said(folder), said, folder)
    # what was loaded and not its files: an index or the config may name any
    origin = fingerprint({"said": said, "transformers": release, "weights": digest(network.state_dict())})
    model = TorchPredictor(network, origin=origin, **settings)
    model.remarks = (*tried, *input_remarks(processor, model.name), *declared.remarks(model.name, card))
    return model


def _said(folder: Path) -> str:
    """Digest what a folder says of network and images."""
    return fingerprint([digest_or_missing(folder / name) for name in (CONFIG, PROCESSOR)])


def read_part(file: Path) -> dict[str, Any]:
    """Read one of the folder's JSON files."""
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"'{file}' cannot be read as JSON ({shortened(str(error))}): copy it again.") from error
    if not isinstance(content, dict):
        raise InputError(f"'{file}' holds {type(content).__name__}, and a mapping is due: copy it again.")
    return content


def _has_safe_weights(folder: Path, declared: Declared) -> bool:
    """Say whether weights are without code; pickled ones are read only if trusted."""
    if any((folder / name).is_file() for name in _SAFE):
        return True
    pickled = folder / _PICKLED
    if not pickled.is_file():
        raise InputError(
            f"Model '{folder}' has no {_SAFE[0]}: copy the weights into the folder; nothing is downloaded."
        )
    if not declared.trust:
        raise InputError(
            f"Model '{folder}' has pickled weights ({_PICKLED}), and reading them could run any code: save them as "
            f"{_SAFE[0]} (save_pretrained), or trust them (trust: true, --trust)."
        )
    require_whole(pickled, "Weights file")
    warn_trusted(pickled)
    return False


def _activation(config: Mapping[str, Any], folder: Path) -> str:
    problem = config.get("problem_type")
    if problem in _ACTIVATIONS:
        return _ACTIVATIONS[problem]
    said = (
        "says no problem_type" if problem is None else f"says problem_type {shown(problem)}, which is no classification"
    )
    raise InputError(
        f"Model '{folder}' {said} in its {CONFIG}: declare output: {{kind: logit, activation: sigmoid}} where several "
        "labels may be present at once, softmax where one of them is."
    )


def _labels(config: Mapping[str, Any], folder: Path) -> list[str]:
    """Give the names of the outputs in their order; none where they are LABEL_0, LABEL_1, which name nothing."""
    named = config.get("id2label")
    if named is None:
        return []
    try:
        names = [str(named[key]) for key in sorted(named, key=int)]
        whole = sorted(map(int, named)) == list(range(len(names)))
    except (TypeError, ValueError, AttributeError):
        whole = False
    if not whole:
        raise InputError(f"'{folder / CONFIG}' has the id2label {shown(named)}: give a name for each output from 0 on.")
    return [] if all(name == f"LABEL_{place}" for place, name in enumerate(names)) else names


def _require_prepared(folder: Path, spec: InputSpec) -> tuple[str, ...]:
    """Refuse a folder whose own processor makes another grey value or colour of plain pictures than is made here."""
    from transformers import AutoImageProcessor

    plain: list[list[int]] = [[51] * spec.channels, [204] * spec.channels, [51, 102, 204][: spec.channels]]
    pictures = [np.full((*(spec.shape or (32, 32)), spec.channels), value, np.uint8) for value in plain]
    try:
        processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        made = [processor(Image.fromarray(one.squeeze()), return_tensors="pt")["pixel_values"][0] for one in pictures]
        theirs = np.stack([_centre(one) for one in made])
    except Exception as error:  # another library's reader
        return (f"The image processor of '{folder}' could not be tried ({one_sentence(error).rstrip('.')}).",)
    ours = np.stack([_centre(spec.prepare(torch.tensor(one.transpose(2, 0, 1)[None] / 255))[0]) for one in pictures])
    same = np.all(np.abs(theirs - ours) < _SAME * (1 + np.abs(theirs)), axis=1)
    if same.all():
        return ()
    said = f"The image processor of '{folder}' makes other numbers of a plain picture than what its {PROCESSOR} says"
    if same[:2].all() or (theirs[0] == theirs[1]).any():
        raise InputError(
            f"{said}, as if it took the channels in another order: name a file.py:function that does what it does, or "
            "declare input, with mean and std, where all images are grey."
        )
    std = 0.6 / (theirs[1] - theirs[0])
    scale = {"channels": spec.channels, "low": 0, "high": 1, "mean": (0.2 - theirs[0] * std).round(4).tolist()}
    raise InputError(f"{said}: declare input: {_written(scale | {'std': std.round(4).tolist()})}.")


def _centre(image: torch.Tensor) -> npt.NDArray[np.float64]:
    return image[:, image.shape[1] // 2, image.shape[2] // 2].double().numpy()


def _written(settings: Mapping[str, object]) -> str:
    return f"{{{', '.join(f'{name}: {value}' for name, value in settings.items())}}}"


def _network(folder: Path, *, safe: bool) -> tuple[torch.nn.Module, str]:
    """Build the network and fill it, by which release; a tensor that the file lacks would be random, and is refused."""
    with needed("transformers", "huggingface", f"Model '{folder}'"):
        from transformers import AutoModelForImageClassification, __version__
        from transformers.utils import logging
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        network, told = AutoModelForImageClassification.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, use_safetensors=safe, output_loading_info=True
        )
    except Exception as error:  # another library's reader: damaged and foreign files come as errors of many types
        raise InputError(
            f"Model '{folder}' cannot be read as an image classifier of transformers ({one_sentence(error)})."
        ) from error
    finally:
        logging.set_verbosity(level)
    lost = sorted(map(str, [*told["missing_keys"], *told["mismatched_keys"]]))
    if lost:
        raise InputError(
            f"The weights in '{folder}' lack {len(lost)} tensors of the network (first '{shortened(lost[0])}'), or "
            "have them in another shape: give the weights of the whole trained classifier."
        )
    return network, __version__
