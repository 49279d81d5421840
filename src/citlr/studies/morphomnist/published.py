"""Numbers that others published, as far as they are known here, and how their protocol differs from this one."""

from __future__ import annotations

from dataclasses import dataclass

CITATION = (
    'Melistas et al. 2024, "Benchmarking Counterfactual Image Generation", NeurIPS Datasets and Benchmarks, '
    "arXiv:2403.20287"
)


@dataclass(frozen=True)
class Published:
    """A row that others measured; None where the number was not at hand here, and is not made up."""

    model: str
    composition: dict[str, float]
    fid: float | None


PUBLISHED = (Published("HVAE", {"1": 0.438, "10": 1.550}, 5.36), Published("VAE", {}, None), Published("GAN", {}, None))
# What is as in the benchmark was read in its code, https://github.com/gulnazaki/counterfactual-benchmark.
ALIKE = (
    "thickness and intensity by the same equations, digits of 28 pixels with 2 of black on each side",
    "L1 as the mean absolute difference over all pixels, in 0 to 255, after 1 and 10 null interventions in a row",
    "interventions to values of the training split in another group than the image's own; do(thickness) moves "
    "intensity along the graph, do(intensity) does not move thickness",
    "minimality as their divergence, log(.8 exp(p) + .2 exp(q)), weights of their code; realism as FID to training "
    "images",
)
DIFFERENT = (
    "Their models learn from 60,000 digits, with a GPU; ours from the counts above, in minutes on one core. Counts of "
    "digits that are measured differ too (theirs 10,000), and a Frechet distance of few images is too large.",
    "Their intensity under do(thickness) comes from a normalising flow that is learnt, here from the equation.",
    "Their effectiveness is read by a network per attribute, that of thickness told the intensity; here by one network "
    "for all, told nothing, and by measurement. So no published effectiveness stands beside ours.",
    "Their FID is in ImageNet features (Inception-v3), here in the features that the table names: the two scales have "
    "nothing in common, unless `--features inception_v3:FILE` is given. The same is true of minimality.",
    "They also intervene on the digit. Here it is held: no digit has an exact counterfactual as another one.",
    "Digits are drawn at 4 fine pixels per pixel and not 16, with the edge moved until the mean over the digit's own "
    "skeleton is the thickness, and a skeleton that stays where a stroke would vanish; theirs are dilated or eroded by "
    "a whole number of fine pixels.",
    "Their tables have numbers for VAE and GAN, and for HVAE more than stand here; they were not at hand when this "
    "page was made, and are not quoted from memory.",
)
