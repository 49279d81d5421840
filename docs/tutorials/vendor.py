# %% [markdown]
# # A vendor's closed model, by CSV
#
# The vendor keeps the model. You send pictures under opaque names; the vendor sends back a table of numbers. Nobody hands over
# a model, a patient's name or a level of sex.
#
# Here the "vendor" is a small model in this notebook, and the cohort is the phantom's.

# %%
import json
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

import citlr
from citlr.simulators.phantom.classifiers import analytic_blind

world = citlr.PhantomWorld(size=32, correlation={"cardiomegaly": 0.3})
cohort = world.sample(700, seed=0, images_per_patient=1).write("world", seed=0)
pd.read_csv("world/phantom.csv").head(3)

# %% [markdown]
# ## 1. The configuration
#
# `kind: closed` has no source. `labels` says which answers are asked for. The budgets are the smallest that show something: leave
# `options` out for an audit of yours.

# %%
Path("audit.yaml").write_text("""
cohort:
  table: world/phantom.csv
  images: world
  attribute: sex
  labels: [cardiomegaly]
  covariates: [view]
generator:
  preset: tiny
  size: 32
  hold: [view, cardiomegaly]
  options: {ae_steps: 120, denoiser_steps: 150}
generate: {draws: 2}
model:
  name: vendor
  kind: closed
  labels: [cardiomegaly]
test: {margin: 0.05}
gates: {probe_steps: 300}
controls: {replicate_images: 30, bootstraps: 5, planted: [2.0]}
quality: {cycles: 1}
""")
# !citlr audit audit.yaml --out run --until quality --quiet

# %% [markdown]
# ## 2. What goes out
#
# Pictures, and a manifest of ids in an order that says nothing. The key stays in the run.

# %%
# !citlr export run --out for_the_owner --quiet
manifest = pd.read_csv("for_the_owner/manifest.csv")
print(len(manifest), "pictures;", list(manifest.columns))
manifest.head(3)

# %% [markdown]
# ## 3. The vendor answers
#
# This cell is the vendor's: it opens pictures, runs the model, and writes `id` and one number per picture.

# %%
vendor = citlr.load_predictor(
    analytic_blind(world, "cardiomegaly"), kind="torch", labels=["cardiomegaly"], input={"size": 32}, output="logit"
)
pictures = np.stack(
    [np.asarray(Image.open(f"for_the_owner/{one}.png"), dtype="float32") / 255 for one in manifest["id"]]
)
answers = pd.DataFrame({"id": manifest["id"], "cardiomegaly": vendor.predict(pictures[:, None])[:, 0]})
answers.to_csv("answers.csv", index=False)
answers.head(3)

# %% [markdown]
# ## 4. The verdict
#
# The answers are checked whole before anything is changed. A table with a missing id is refused:

# %%
answers.iloc[1:].to_csv("cut.csv", index=False)
# !citlr ingest run cut.csv --quiet

# %%
# !citlr ingest run answers.csv --quiet

# %%
result = citlr.read_result("run/audit.json")
result

# %%
print(json.dumps(result.provenance.get("model_run", {}), indent=2))

# %% [markdown]
# `run/audit.html` is the page. The how-to page is [a vendor's model](../closed.md).
