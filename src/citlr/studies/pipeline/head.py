"""What stands at the top of the whole-pipeline calibration's page: which worlds, which classifiers, which words."""

from __future__ import annotations

from typing import Any

TITLE = """# The whole pipeline: how often does an audit accuse an innocent classifier?

This page is made from `pipeline.json` by `citlr calibrate --pipeline{options} --page docs/pipeline.md`. """

PHANTOM = """Phantom worlds{anatomy}, whose
counterfactuals are known exactly, differ in how strongly sex goes together with the two audited findings
(cardiomegaly, effusion). In each, a generator is trained from scratch on the world's own images, and redraws the test
images under both levels. Every classifier is audited as `citlr audit` does it, gates included.

- **Blind** classifiers multiply every pixel that sex can touch by zero: their true dependence is exactly 0.
- **Biased** ones add a known dose of a detector of sex to the logit of a blind one (0.25 to 6 logits).
- **Shortcut** ones are trained on all pixels in patients in whom sex and finding go together, and may have learnt it.
- **Indifferent** ones look at pixels where sex acts (about half of their weights lie there) and use nothing of what
  sex does: their weights are at a right angle to its true change, unit by unit. Any error of the generator there moves
  them.

- **Hidden** ones stand in worlds of their own, where men carry a cue besides what the phantom draws: a texture of
  single pixels, stripes in a band whose images show nothing on average, or a marker in the corner. The generator draws
  images of half the size that these classifiers read. Some read the cue alone, some the finding or
  the cue, some the finding with a dose of the cue. Others use the cue in a part of the images only (raising the output,
  or turning it round), or answer 0 and 1. None of them is to be called equivalent.
"""

SEMIREAL = """Real images ({images} of {patients}
patients, *{cohort}*) into which an attribute is planted whose counterfactuals are known exactly ({effects}; strength
{strength:g}; levels {levels}). Worlds differ in how strongly it goes together with {label}. In each, a generator is
trained from scratch on the world's own images, and redraws the test images under all levels. Every classifier is
audited as `citlr audit` does it, gates included. All classifiers are linear in frozen features: mean grey values, and
what random filters answer.

- **Blind** classifiers have weights at a right angle to what the attribute does to every image of the world: their true
  dependence is 0.
- **Biased** ones add a dose of a detector of the attribute to the logit of a blind one, which turns 2 % to 50 % of the
  decisions, every third towards the first level.
- **Shortcut** ones are trained on the images as they are, in which attribute and finding may go together.
- **Indifferent** ones read the attribute, and let it turn fewer decisions than the margin (about .8 %).
- **Hidden** ones stand in worlds of their own, where images of the last level carry a cue besides what is planted: a
  texture of single pixels, stripes in a band, or a marker in the corner. The generator draws images of half the size
  that these classifiers read. None of them is to be called equivalent.
"""

WORDS = """
A *false alarm* is the verdict "dependence" about a blind classifier. The truth is taken over the same test images,
from their exact counterfactuals.

*On trust* is what the verdict would be if the generator were beyond doubt: without the gates, and without the error
that its own training sample leaves open.
"""

WHY_PHANTOM = """
A blind one is accused as soon as the generator changes pixels that sex cannot touch; an indifferent one when what the
generator changes where sex acts is not what sex does there. An indifferent one still uses a little of sex. So
"dependence" about it is no error of the test, but it would mislead an auditor.
"""

WHY_SEMIREAL = """
A blind one is accused as soon as the generator changes an image in another way than the attribute does. An indifferent
one still uses a little of the attribute. So "dependence" about it is no error of the test, but it would mislead an
auditor.
"""


def head_of(tables: dict[str, Any]) -> str:
    """Write the top of the page; tables without a family are of the phantom as it was."""
    family = tables.get("family", {"world": "phantom", "anatomy": "fixed"})
    if family["world"] == "phantom":
        varying = family["anatomy"] == "varying"
        worlds = PHANTOM.format(anatomy=" whose anatomy varies" if varying else "")
        return TITLE.format(options=" --world varying" if varying else "") + worlds + WORDS + WHY_PHANTOM
    shown = family | {"effects": ", ".join(family["effects"]), "levels": ", ".join(family["levels"])}
    worlds = SEMIREAL.format(**shown, label=family["labels"][0])
    return TITLE.format(options=" --world semireal") + worlds + WORDS + WHY_SEMIREAL
