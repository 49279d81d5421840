# %% [markdown]
# # The phantom, step by step
#
# A world whose truth is known: chest images made by equations. Sex shows in the bone and in a shadow, and we can ask for
# the *true* image of the same person under the other sex. So everything an audit says can be held against the truth.

# %%
import matplotlib.pyplot as plt
import numpy as np

import citlr
from citlr.config import ControlsConfig, GateConfig, QualityConfig
from citlr.simulators.phantom.classifiers import BiasedClassifier, analytic_blind, attribute_detector

world = citlr.PhantomWorld(size=32, correlation={"cardiomegaly": 0.3})
sample = world.sample(900, seed=0, images_per_patient=1)
sample.frame[["patient_id", "sex", "view", "cardiomegaly"]].head()

# %% [markdown]
# ## What sex does to an image
#
# The same four people under both levels, and the difference. Nothing else moves: the heart stays as it is.

# %%
few = sample.take(range(4))
female, male = few.counterfactual("female")[:, 0], few.counterfactual("male")[:, 0]


def show(rows, names, *, differences=()):
    _, axes = plt.subplots(len(rows), 4, figsize=(7, 1.8 * len(rows)), layout="constrained", squeeze=False)
    for line, images, name in zip(axes, rows, names, strict=True):
        grey = (
            {"cmap": "RdBu_r", "vmin": -0.5, "vmax": 0.5}
            if name in differences
            else {"cmap": "gray", "vmin": 0, "vmax": 1}
        )
        for axis, image in zip(line, images, strict=True):
            axis.imshow(image, **grey)
            axis.set(xticks=[], yticks=[])
        line[0].set_ylabel(name)
    plt.show()


show([female, male, male - female], ["female", "male", "difference"], differences=["difference"])

# %% [markdown]
# ## Two models
#
# One cannot see sex: it looks only at pixels that sex never touches. The other adds something to its output when the image
# looks like a man's.

# %%
blind = analytic_blind(world, "cardiomegaly")
biased = BiasedClassifier(blind, attribute_detector(world), strength=3.0)
models = {
    name: citlr.load_predictor(
        module, kind="torch", name=name, labels=["cardiomegaly"], input={"size": 32}, output="logit"
    )
    for name, module in {"blind": blind, "biased": biased}.items()
}

# %% [markdown]
# ## A generator that has to learn it
#
# The audit does not know the equations. A latent diffusion model learns from the training images what sex does. The view and
# the finding are kept as observed. These budgets are the smallest that show something; leave them out for an audit.

# %%
cohort = sample.write("world", seed=0)
train, validation, test = (cohort.part(name) for name in ("train", "validation", "test"))
generator = citlr.DLDM(size=32, hold=["view", "cardiomegaly"], preset="tiny", ae_steps=150, denoiser_steps=200)
generator.fit(train, validation, seed=0)
counterfactuals = citlr.generate(generator, test, attribute="sex", draws=2, replicate_images=60, seed=0)
print(len(train), "images learnt from,", len(test), "redrawn under", counterfactuals.levels)

# %% [markdown]
# Redrawn images of four test patients, and what redrawing under the other sex changed beyond redrawing alone. The last line is the
# truth, which an audit never sees.

# %%
drawn = counterfactuals.main.read(0).drawn[:4, :, 0]  # (image, level, 32, 32) of the first draw
drawn = drawn.reshape(4, 2, 32, 32)
truth = sample.of_images(test.frame["image_id"][:4])
true_change = (truth.counterfactual("male") - truth.counterfactual("female"))[:, 0]
show(
    [drawn[:, 0], drawn[:, 1], drawn[:, 1] - drawn[:, 0], true_change],
    ["as female", "as male", "redrawn", "truth"],
    differences=["redrawn", "truth"],
)

# %% [markdown]
# ## The audit
#
# Both models answer the same redrawn images. The margin says what is too small to matter: 5 % of the calls.

# %%
small = {
    "gates": GateConfig(probe_steps=300),
    "controls": ControlsConfig(planted=(2.0,), bootstraps=5),
    "quality": QualityConfig(cycles=2),
    "out": "audit",  # the second model takes up what was measured for the first
}
results = {name: citlr.audit(model, counterfactuals, margin=0.05, seed=0, **small) for name, model in models.items()}
results["blind"]

# %%
results["biased"]

# %% [markdown]
# ## Against the truth
#
# The share of test images whose call truly changes with sex:

# %%
units = sample.of_images(test.frame["image_id"])
for name, model in models.items():
    under = [model.predict(units.counterfactual(level))[:, 0] > 0.5 for level in world.levels]
    row = results[name].tests[0]
    print(
        f"{name}: true share {np.mean(under[0] != under[1]):.3f}, true mean {np.mean(under[1]) - np.mean(under[0]):.3f};",
        end=" ",
    )
    print(f"read: mean effect {row.mean_effect.estimate:.3f}, psi {row.psi.estimate:.3f}")

# %% [markdown]
# The mean effect comes close to the truth. Psi is read too small: near the threshold a call flips in some draws only, and short
# training adds noise. [The evidence](../pipeline.md) says by how much. The gates say how far these images can be trusted:

# %%
for gate in results["biased"].quality.gates:
    print("passed" if gate.passed else "FAILED", "|", gate.name, "|", gate.text)
