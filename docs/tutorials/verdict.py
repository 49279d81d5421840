# %% [markdown]
# # Is this verdict right?
#
# A verdict is only as good as what it rests on. This page breaks an audit on purpose, four times, and reads what the page
# of an audit would say. It uses the phantom, whose true counterfactuals are known.

# %%
import matplotlib.pyplot as plt
import numpy as np

import citlr
from citlr.config import ControlsConfig, GateConfig, QualityConfig
from citlr.simulators.phantom.classifiers import BiasedClassifier, analytic_blind, attribute_detector

world = citlr.PhantomWorld(size=32, correlation={"cardiomegaly": 0.3})
blind = analytic_blind(world, "cardiomegaly")
biased = BiasedClassifier(blind, attribute_detector(world), strength=3.0)


def load(module):
    return citlr.load_predictor(module, kind="torch", labels=["cardiomegaly"], input={"size": 32}, output="logit")


def answers(model, people, *, noise=0.02, draws=4):
    """What a model answers on true counterfactuals, each drawn with a little noise, as a generator has."""
    random = np.random.default_rng(0)
    levels = [people.counterfactual(level) for level in world.levels]
    drawn = [
        [
            model.predict(np.clip(image + random.normal(0, noise, image.shape), 0, 1).astype("float32"))
            for _ in range(draws)
        ]
        for image in levels
    ]
    return citlr.Responses.from_arrays(
        np.asarray(drawn).transpose(2, 0, 1, 3),
        patients=people.frame["patient_id"],
        levels=world.levels,
        labels=["cardiomegaly"],
    )


# %% [markdown]
# ## 1. Too few patients
#
# The blind model is innocent. With 60 patients the audit cannot show it: the interval crosses the margin. *Inconclusive* is not
# "fair" and not "unfair". It asks for more patients, and `power` says how many.

# %%
few, many = (world.sample(count, seed=1, images_per_patient=1) for count in (60, 1000))
small = citlr.assess(answers(load(blind), few), margin=0.05)
print(small.verdict, "-", small.reason)
report = citlr.power.power(answers(load(blind), few), margin=0.05)
print("patients needed if the model is invariant:", int(report.patients_needed[0]))
print("smallest psi that 60 patients show:", round(float(report.detectable_psi[0]), 3))

# %%
large = citlr.assess(answers(load(blind), many), margin=0.05)
print(large.verdict, "-", large.reason)

# %% [markdown]
# The two intervals of psi, and the margin:

# %%
figure, axes = plt.subplots(figsize=(7, 1.6), layout="constrained")
for row, found in enumerate((small, large)):
    psi = found.tests[0].psi
    axes.plot([psi.low, psi.high], [row, row], linewidth=3)
    axes.plot(psi.estimate, row, "o", color="black")
axes.axvline(0.05, color="black", linestyle="--")
axes.set(
    yticks=[0, 1], yticklabels=["60 patients", "1000 patients"], ylim=(-0.6, 1.6), xlabel="psi; dashed: the margin"
)
plt.show()

# %% [markdown]
# ## 2. A margin that was moved
#
# The biased model with a margin of .5: "equivalent" within a change that nobody would accept. Choose the margin before the audit, from
# what matters to patients. A margin that was changed after a first verdict is told on the page.

# %%
for margin in (0.05, 0.5):
    found = citlr.assess(answers(load(biased), many), margin=margin)
    print(margin, found.verdict, "- psi", round(found.tests[0].psi.estimate, 3))

# %% [markdown]
# ## 3. A generator that has learnt too little
#
# Here a generator is trained for a few steps only. Its images are no basis for a verdict, and the gates say so. A failed gate is
# never a finding about the model; each line says what it measured, and the limit.

# %%
sample = world.sample(400, seed=2, images_per_patient=1)
cohort = sample.write("world", seed=0)
train, validation, test = (cohort.part(name) for name in ("train", "validation", "test"))
generator = citlr.DLDM(size=32, hold=["view", "cardiomegaly"], preset="tiny", ae_steps=8, denoiser_steps=8)
generator.fit(train, validation, seed=0)
counterfactuals = citlr.generate(generator, test, attribute="sex", draws=2, replicate_images=0, seed=0)
result = citlr.audit(
    load(biased),
    counterfactuals,
    margin=0.05,
    gates=GateConfig(probe_steps=100),
    controls=ControlsConfig(planted=(1.0, 4.0), bootstraps=5),
    quality=QualityConfig(cycles=1),
)
print(result.verdict)
for gate in result.quality.gates:
    print("passed" if gate.passed else "FAILED", "|", gate.about, "|", gate.name, "|", gate.text)

# %% [markdown]
# What to do is in [what a gate is](../concepts/gates.md): train longer, use more images, hold what drifted.
#
# ## 4. What would have been noticed?
#
# "Nothing was found" means little if nothing could be found. So a bias of known size is planted into the model, and audited in
# the same way. The strengths are in logits; a planted bias that is not found says that the audit is blind for that size.

# %%
for planted in result.controls.planted:
    print(f"planted {planted.strength:g} logits: psi {planted.psi:.3f},", "found" if planted.detected else "not found")
print("coin:", result.controls.placebo)

# %% [markdown]
# ## The order in which to read
#
# 1. Gates: if one failed, stop there.
# 2. The interval of psi and of the mean effect, against the margin.
# 3. The smallest effect that these patients show.
# 4. The controls: the coin must not show, the planted bias must.
#
# [How to read a verdict](../concepts/verdict.md) has it in full.
