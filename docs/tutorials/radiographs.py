# %% [markdown]
# # 1000 real radiographs
#
# From a table and a folder of chest radiographs (a part of NIH ChestX-ray14) to a verdict. The images do not come with the
# package. Set `CITLR_DATA` to the folder that holds `nih_cxr14_1000_256px`. Without it this page says so, and its
# cells do nothing.

# %%
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import citlr
from citlr.config import ControlsConfig, GateConfig, QualityConfig

data = Path(os.environ.get("CITLR_DATA", "data")) / "nih_cxr14_1000_256px"
there = (data / "metadata.csv").is_file()
print("The radiographs are there." if there else "SKIPPED: the radiographs are not there; set CITLR_DATA.")

# %% [markdown]
# ## Who is in
#
# The table has its own names for columns; `columns` says which is which. A patient is in one part only.

# %%
if there:
    cohort = citlr.read_cohort(
        data / "metadata.csv",
        images=data,
        attribute="sex",
        levels=["F", "M"],
        labels=["effusion"],
        covariates=["view"],
        columns={"path": "image", "image_id": "source_file"},
        split="split",
    )
    train, validation, test = (cohort.part(name) for name in ("train", "validation", "test"))
    print(len(train), "train,", len(validation), "validation,", len(test), "test")
    display(cohort.counts())

# %% [markdown]
# ## A generator, too small on purpose
#
# Some seconds of training at 32 pixels. An audit of real radiographs takes `size: 64` or more and the `laptop` preset or a larger one, and hours on a GPU
# for fine detail. Here we want to see what the gates say of a generator that is not good enough.

# %%
if there:
    generator = citlr.DLDM(size=32, hold=["view", "effusion"], preset="tiny", ae_steps=60, denoiser_steps=60)
    generator.fit(train, validation, seed=0)
    counterfactuals = citlr.generate(generator, test, attribute="sex", draws=2, replicate_images=0, seed=0)
    drawn = counterfactuals.main.read(0).drawn[:4, :, 0].reshape(4, 2, 32, 32)
    figure, axes = plt.subplots(3, 4, figsize=(7, 5.4), layout="constrained")
    change = drawn[:, 1] - drawn[:, 0]
    for line, images, name in zip(
        axes, (drawn[:, 0], drawn[:, 1], change), ("as female", "as male", "difference"), strict=True
    ):
        for axis, image in zip(line, images, strict=True):
            span = (
                {"cmap": "RdBu_r", "vmin": -0.3, "vmax": 0.3}
                if name == "difference"
                else {"cmap": "gray", "vmin": 0, "vmax": 1}
            )
            axis.imshow(image, **span)
            axis.set(xticks=[], yticks=[])
        line[0].set_ylabel(name)
    plt.show()

# %% [markdown]
# ## A model under audit
#
# Any function that takes images and gives probabilities. This one looks at how dark the lung bases are: a crude reading of an
# effusion, and nobody knows whether it uses sex.


# %%
def bases(images):
    """Answer for images (n, 1, 64, 64): brighter lung bases, more likely an effusion."""
    lower = images[:, 0, 36:58, 8:56].mean(axis=(1, 2))
    return 1 / (1 + np.exp(-12 * (lower - 0.55)))[:, None]


if there:
    model = citlr.load_predictor(bases, kind="callable", labels=["effusion"], input={"size": 64})

# %% [markdown]
# ## The audit, and what it says of itself

# %%
if there:
    result = citlr.audit(
        model,
        counterfactuals,
        margin=0.05,
        gates=GateConfig(probe_steps=150),
        controls=ControlsConfig(planted=(2.0,), bootstraps=5),
        quality=QualityConfig(cycles=1),
    )
    print(result.verdict)
    for gate in result.quality.gates:
        print("passed" if gate.passed else "FAILED", "|", gate.about, "|", gate.name, "|", gate.text)

# %% [markdown]
# Fewer than 1000 radiographs and seconds of training make no generator for real images, and the gates say so instead of accusing
# or acquitting the model. `examples/nih_sex.yaml` is the whole audit, and its `quality.learning_curve` tells how many images would do.
#
#     citlr audit examples/nih_sex.yaml --out run/nih_sex
#
# [What was measured on real radiographs](../generators.md).
