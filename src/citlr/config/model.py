"""The section of the model under audit: where it is, what it wants to see, and what it gives back."""

from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    field_validator,
    model_serializer,
    model_validator,
)

from citlr.config.sections import Section
from citlr.values import ByForm, File, Flag, Listed, Name, Names, Number, One, PerName, Side, Source, Whole

# The forms in which a model comes, each a file of `citlr.predictors.adapters`, and the endings of its files.
MODEL_FILES: dict[str, tuple[str, ...]] = {
    "torch": (".safetensors",),
    "exported": (".pt2",),
    "torchscript": (".ts", ".torchscript", ".pt", ".pth"),
    "onnx": (".onnx",),
    "sklearn": (".joblib", ".pkl", ".pickle"),
    "huggingface": (),  # a folder
    "monai": (),  # a folder, too
    "callable": (),
}
if TYPE_CHECKING:
    ModelKind = str
else:
    # "closed": run by its owner elsewhere; its answers come in through `citlr ingest`.
    ModelKind = Literal[(*MODEL_FILES, "closed")]
OutputKind = Literal["probability", "logit"]
# Grey values of any scale that images come in; float32 holds them.
Grey = Annotated[Number, Field(ge=-1e9, le=1e9)]
Above = Annotated[Number, Field(ge=1e-9, le=1e9)]
Column = Annotated[Whole, Field(ge=0, le=1_000_000)]
Sides = Annotated[Annotated[Side, One] | Annotated[tuple[Side, Side], Listed], ByForm]
Scale = Annotated[Annotated[Grey, One] | Annotated[tuple[Grey, ...], Listed], ByForm]
Spread = Annotated[Annotated[Above, One] | Annotated[tuple[Above, ...], Listed], ByForm]
Columns = Annotated[
    Annotated[tuple[Column, ...], Listed, Field(min_length=1)]
    | Annotated[dict[Name, Column], PerName, Field(min_length=1)],
    ByForm,
]


def _channels(value: int) -> int:
    if value not in (1, 3):
        raise ValueError("a model takes 1 (grey) or 3 (colour, or grey repeated)")
    return value


Channels = Annotated[Whole, AfterValidator(_channels)]


class _Declaration(Section):
    """What is said of a model; it is written without what was not said, of which the model's file may speak."""

    @model_serializer(mode="wrap")
    def _said(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in dump(self).items() if name in self.model_fields_set}


class InputConfig(_Declaration):
    """What the model wants to see: size in pixels, channels, the grey scale, and its mean and spread."""

    size: Sides | None = None
    """Side in pixels, or height and width. Without it the model's file says so, else `generator.size`."""
    channels: Channels = 1
    """1 for grey, 3 for colour."""
    low: Grey = 0.0
    """The grey value of black."""
    high: Grey = 1.0
    """The grey value of white."""
    mean: Scale = 0.0
    """The mean that is subtracted: one number, or one per channel."""
    std: Spread = 1.0
    """The standard deviation that is divided by: one number, or one per channel."""
    layout: Literal["channels_first", "channels_last"] = "channels_first"
    """Whether the channels are the first or the last axis of an image."""
    luminance: Flag = False
    """Shows a model of one channel the luminance of images in colour. Without it such a model is refused."""

    @model_validator(mode="after")
    def _scales_agree(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"low is {self.low:g} and high {self.high:g}; low must be below high")
        if self.luminance and self.channels != 1:
            raise ValueError("luminance is of models that take one channel: leave it out, or say channels: 1")
        # Where the channels are not said, the model's file may say them.
        for name in ("mean", "std") if "channels" in self.model_fields_set else ():
            value = getattr(self, name)
            if isinstance(value, tuple) and len(value) != self.channels:
                raise ValueError(f"{name} has {len(value)} values for {self.channels} channel(s): give one for each")
        return self


class OutputConfig(_Declaration):
    """What the model gives: its kind, what makes logits probabilities, and which column or output is which label's."""

    kind: OutputKind = "probability"
    """Whether the outputs are probabilities or logits."""
    activation: Literal["sigmoid", "softmax"] = "sigmoid"
    """What makes probabilities of logits: of each by itself, or of all together."""
    columns: Columns | None = None
    """The output column of each label: a list in the order of the labels, or a number per label."""
    name: Name | None = None
    """The name of the output, where the model gives several."""


def _output_form(value: Any) -> str:
    return "#one" if isinstance(value, str) else "#mapping"


Output = Annotated[Annotated[OutputKind, One] | Annotated[OutputConfig, Tag("#mapping")], Discriminator(_output_form)]


class ModelConfig(Section):
    """The model under audit, and what it declares of its inputs and outputs.

    `kind: closed` is a model that only its owner can run: it needs `labels` and no `source`; its images go out with
    `citlr export` and its answers come in with `citlr ingest`. What `input` and `output` leave out the model's file
    says, else they are grey images in [0, 1] as they come, and probabilities.
    """

    source: Source | None = None
    """The model's file or folder, `file.py:factory`, or `torchvision:NAME`, `timm:NAME`. None for `closed`."""
    kind: ModelKind | None = None
    """The form in which it comes. Without it the file's ending decides; `closed` is run by its owner elsewhere."""
    name: Name | None = None
    """What the model is called on the page and in folders."""
    labels: Names | None = None
    """The names of its outputs, in their order."""
    weights: File | None = None
    """The file of the weights, where `source` names a network without them: `file.py:factory`, `torchvision:NAME`."""
    input: InputConfig | None = None
    """What the model wants to see. Without it the model's file says so, else grey images in [0, 1] as they come."""
    output: Output | None = None
    """What it gives. Without it the model's file says so, else probabilities."""
    batch_size: Annotated[Whole, Field(ge=1, le=100_000)] = 64
    """How many images the model is given at a time."""
    trust: Flag = False
    """Whether a pickle or the configuration of a MONAI bundle, which can run any code, may be opened."""

    @field_validator("input", "output", mode="before")
    @classmethod
    def _said(cls, value: Any) -> Any:
        """Take an empty mapping for nothing said: the model's file then speaks for itself."""
        return None if value == {} else value

    @model_validator(mode="after")
    def _is_there(self) -> Self:
        if self.source is None and self.kind != "closed":
            raise ValueError(
                "'source' is missing: name the model's file or import path (only kind: closed, a model that its owner "
                "runs elsewhere, has none)"
            )
        if self.kind == "closed":
            # `source` may say whose model it is, and `input` at which size it reads images.
            given = [name for name in ("weights", "output") if getattr(self, name) is not None]
            if given:
                raise ValueError(f"a model of kind: closed is not run here, so leave out {' and '.join(given)}")
        return self
