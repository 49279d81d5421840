"""A realistic audit that never happened: several labels, three levels, failed gates, missing numbers, hostile names."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd

from citlr.audit.results.records import Accuracy
from citlr.audit.results.result import (
    AuditResult,
    BaselineRow,
    CohortSummary,
    Controls,
    Estimate,
    Gate,
    Placebo,
    PlantedBias,
    Quality,
    SubgroupRow,
    TestRow,
)
from citlr.invariance.effects.accuracy import Answers, accuracy_by_level
from citlr.report.charts.gallery import Gallery, Strip

LABELS = ("cardiomegaly", "edema", "consolidation", "atelectasis", "pleural effusion")
FOURTEEN = (
    *LABELS, "pneumonia", "pneumothorax", "nodule", "mass", "infiltration", "fibrosis", "emphysema", "hernia",
    "pleural thickening",
)  # fmt: skip
RACES = ("asian", "black", "white")
SEXES = ("female", "male")
NAN = math.nan


def make_row(label, contrast, *, attribute, psi, mean, width, verdict, pvalue, tests, outcome="decision", **changes):
    row = {
        "attribute": attribute,
        "contrast": contrast,
        "label": label,
        "outcome": outcome,
        "method": "randomization_sign_flip",
        "n_images": 1000,
        "n_patients": 812,
        "draws": 4,
        "statistic": 3.1,
        "pvalue": pvalue,
        "pvalue_adjusted": min(1.0, pvalue * tests),
        "pvalue_screening": min(1.0, pvalue * 2),
        "log10_pvalue": math.log10(pvalue),
        "mean_effect": Estimate(mean, mean - width, mean + width),
        "psi": Estimate(psi, psi - 0.6 * width, psi + 0.9 * width),
        "flip_rate": Estimate(psi + 0.031, psi + 0.021, psi + 0.042),
        "within_flip_rate": 0.031,
        "eca": 0.969 - psi,
        "margin": 0.02,
        "equivalence_pvalue": 0.0004 if verdict == "equivalent" else 0.61,
        "detectable_effect": 0.012,
        "verdict": verdict,
        "reason": {
            "dependence": "Adjusted p is below alpha.",
            "equivalent": "Both intervals lie inside the margin.",
            "inconclusive": "Neither dependence nor equivalence is shown.",
        }[verdict],
    } | changes
    return TestRow(**row)


def make_tests(labels=LABELS, levels=SEXES, attribute="sex", *, failed=False, missing=False, outcome="decision"):
    rng = np.random.default_rng(7)
    contrasts = list(combinations(levels, 2))
    total = len(labels) * len(contrasts)
    rows = []
    for index, label in enumerate(labels):
        for contrast in contrasts:
            kind = ("dependence", "inconclusive", "equivalent")[(index + (contrast != contrasts[0])) % 3]
            psi, mean, width, pvalue = {
                "dependence": (0.061 + 0.02 * rng.random(), -0.042, 0.018, 0.0002),
                "inconclusive": (0.014 * rng.random(), 0.012, 0.021, 0.08 + 0.4 * rng.random()),
                "equivalent": (0.001 * rng.random(), 0.001, 0.006, 0.7),
            }[kind]
            verdict = "inconclusive" if failed else kind
            rows.append(
                make_row(
                    label, contrast, attribute=attribute, psi=psi, mean=mean, width=width, verdict=verdict,
                    pvalue=pvalue, tests=total, outcome=outcome,
                )
            )  # fmt: skip
    if missing:
        gone = Estimate(NAN, NAN, NAN)
        rows[-1] = replace(
            rows[-1], verdict="inconclusive", statistic=NAN, pvalue=NAN, pvalue_adjusted=NAN, pvalue_screening=NAN,
            log10_pvalue=NAN, mean_effect=gone, psi=gone, flip_rate=gone, within_flip_rate=NAN, eca=NAN,
            equivalence_pvalue=NAN, detectable_effect=NAN, reason="fewer than two patients have this label",
        )  # fmt: skip
    return tuple(rows)


def make_result(labels=LABELS, levels=SEXES, attribute="sex", *, failed=False, missing=False, **changes):
    tests = changes.pop("tests", make_tests(labels, levels, attribute, failed=failed, missing=missing))
    order = ("equivalent", "inconclusive", "dependence")
    content = {
        "verdict": max((row.verdict for row in tests), key=order.index, default="inconclusive"),
        "tests": tests,
        "baselines": make_baselines(labels, levels, missing=missing),
        "quality": make_quality(labels, levels, failed=failed, missing=missing),
        "controls": make_controls(labels, missing=missing),
        "cohort": make_cohort(labels, levels, attribute),
        "provenance": make_provenance(labels, attribute),
        "model": "chest-net 2.1",
        "subgroups": make_subgroups(tests, levels, attribute),
        "accuracy": make_accuracy(labels, levels),
    } | changes
    return AuditResult(**content)


def make_subgroups(tests, levels, attribute):
    """By recorded level, by view, and where they meet; one part has three patients."""
    views = ("AP", "PA")
    parts = {((attribute, level),): 200 for level in levels} | {(("view", view),): 300 for view in views}
    parts |= {((attribute, level), ("view", view)): 100 for level in levels for view in views}
    parts[(attribute, levels[0]), ("view", "AP")] = 3
    return tuple(
        SubgroupRow(attribute, part, row.contrast, row.label, size, size, row.mean_effect, row.psi, row.flip_rate)
        for part, size in parts.items()
        for row in tests
    )


def make_accuracy(labels, levels, *, cases=30):
    """Measured on outputs that never were; the last level has the finding in `cases` patients, or none."""
    rng = np.random.default_rng(11)
    level = np.repeat(np.array(levels), 120)
    groups, differences = [], []
    for label in labels:
        truth = (rng.random(level.size) < 0.3).astype(float)
        last = np.flatnonzero((level == levels[-1]) & (truth == 1))
        truth[last[cases:]] = 0
        output = 1 / (1 + np.exp(-rng.normal(1.5 * truth - 1, 1)))
        found = accuracy_by_level(Answers(label, output, truth, level, np.arange(level.size) // 2), levels=levels)
        groups += found[0]
        differences += found[1]
    return Accuracy(tuple(groups), tuple(differences))


def make_baselines(labels, levels, *, missing):
    rows = [
        BaselineRow(method, label, levels[:2], 2.31, 0.021, Estimate(0.034, 0.005, 0.063))
        for label in labels
        for method in ("demographic_parity", "equal_opportunity", "predictive_equality")
    ]
    rows += [BaselineRow("published_cit_lr", label, levels[:2], -1.4, 0.16, None) for label in labels]
    if missing:
        rows[1] = BaselineRow(
            "equal_opportunity", labels[0], levels[:2], NAN, NAN, Estimate(NAN, NAN, NAN), "no positive image is female"
        )
    return tuple(rows)


def make_quality(labels, levels, *, failed, missing):
    lowest = 0.71 if failed else 0.93
    gates = (
        Gate("composition", 0.021, 0.05, True, "An image redrawn at its own level must look as before.", "generator"),
        Gate(
            "effectiveness",
            lowest,
            0.8,
            not failed,
            "Redrawn images must read as the level that was asked for.",
            "generator",
        ),
        Gate(
            "drift",
            None if missing else 0.011,
            0.05,
            True,
            "Held labels must not move along; nothing was held.",
            "generator",
        ),
        Gate(
            "placebo", None if missing else 0.62, None, True, "An audit of a fair coin must find nothing.", "generator"
        ),
    )
    return Quality(
        composition=0.0213,
        effectiveness={level: lowest + 0.01 * index for index, level in enumerate(levels)},
        reversibility=None if missing else 0.034,
        minimality=0.12,
        drift=dict.fromkeys(labels[:3], 0.004),
        fid=None if missing else 24.31,
        fid_extractor="DenseNet-121 trained on this cohort",
        gates=gates,
        notes=("fewer than 2048 images, too few for the distance to real images",) if missing else (),
    )


def make_controls(labels, *, missing):
    planted = tuple(
        PlantedBias(
            label,
            strength,
            strength >= 1.0,
            0.4 / (1 + 30 * strength),
            0.0015 * strength**1.7,
            min(1.0, 0.45 * strength),
        )
        for label in labels[:3]
        for strength in (0.25, 0.5, 1.0, 2.0, 4.0)
    )
    notes = ("The placebo was switched off in the configuration.",) if missing else ()
    return Controls(None if missing else Placebo(0.62, 0.0004, 100), planted, None if missing else 2.0, notes)


def make_cohort(labels, levels, attribute):
    flow = (
        {"step": "table", "reason": "rows of the table", "excluded_images": 0, "excluded_patients": 0, "n_images": 5120,
         "n_patients": 3301, "names": []},
        {"step": "view", "reason": "not frontal, AP/PA kept ('lat, asked Dr Gray': 890)",
         "excluded_images": 890, "excluded_patients": 212,
         "n_images": 4230, "n_patients": 3089, "names": []},
        {"step": "unreadable", "reason": "truncated files in /data/hospital/images", "excluded_images": 12,
         "excluded_patients": 3, "n_images": 4218, "n_patients": 3086, "names": ["patient00017_view1.png"]},
    )  # fmt: skip
    rng = np.random.default_rng(3)
    counts = tuple(
        {"split": split, "attribute": attribute, "level": level, "label": label, "value": value,
         "images": int(size), "patients": max(1, int(0.8 * size))}
        for split, base in (("train", 1300), ("validation", 200), ("test", 500))
        for level in levels
        for label in labels
        for value, share in (("negative", 0.8), ("positive", 0.16), ("missing", 0.02 if base == 200 else 0.04))
        for size in [base * share * (0.7 + 0.6 * rng.random())]
    )  # fmt: skip
    everyone = tuple(
        {"split": split, "attribute": attribute, "level": level, "label": "", "value": "all", "images": size,
         "patients": size - 20}
        for split, size in (("train", 1300), ("validation", 200), ("test", 500))
        for level in levels
    )  # fmt: skip
    return CohortSummary(flow, everyone + counts, {attribute: 31, labels[0]: 104, "age": 0})


def make_provenance(labels, attribute):
    return {
        "finished": "2026-03-14T10:22:31Z",
        "seed": 0,
        "versions": {"python": "3.11.9", "torch": "2.9.0", "monai": "1.6.1", "citlr": "0.1.0"},
        "device": "cpu (2 cores)",
        "config": {
            "cohort": {"table": "/srv/ann/study/cohort.csv", "attribute": attribute, "labels": list(labels)},
            "generator": {"kind": "dldm", "preset": "laptop", "size": 64, "hold": ["view"]},
            "test": {"threshold": 0.5, "margin": 0.02, "randomizations": 4999},
        },
        "inputs": {"/srv/ann/study/cohort.csv": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"},
        "stages": [
            {"stage": "fit", "key": "ab12", "seconds": 1312.4, "peak_memory_mb": 1822.0, "attempts": 1, "facts": {}},
            {
                "stage": "generate",
                "key": "cd34",
                "seconds": 204.9,
                "peak_memory_mb": 1410.5,
                "attempts": 2,
                "facts": {},
            },
            {"stage": "predict", "key": "ef56", "seconds": 18.2, "peak_memory_mb": None, "attempts": 1, "facts": {}},
            {"stage": "test", "key": "aa77", "seconds": 9.7, "peak_memory_mb": 600.0, "attempts": 1, "facts": {}},
        ],
    }


def make_responses(result, *, n_images=1000, draws=4, seed=5):
    """Long responses that go with the result: labels that depend move under the later level of a contrast."""
    rng = np.random.default_rng(seed)
    parts = []
    for attribute in dict.fromkeys(row.attribute for row in result.tests):
        rows = [row for row in result.tests if row.attribute == attribute]
        levels = list(dict.fromkeys(level for row in rows for level in row.contrast))
        image = np.array([f"image{index:05d}" for index in range(n_images)])
        factual = np.array(levels)[rng.integers(len(levels), size=n_images)]
        for label in dict.fromkeys(row.label for row in rows):
            logit = rng.normal(-0.8, 1.8, n_images)
            shift = 0.9 if any(row.verdict == "dependence" for row in rows if row.label == label) else 0.05
            base = {"image_id": image, "patient_id": image, "attribute": attribute, "label": label}
            original = 1 / (1 + np.exp(-logit))
            parts.append(pd.DataFrame(base | {"level": factual, "draw": -1, "probability": original}))
            for index, level in enumerate(levels):
                for draw in range(draws):
                    moved = logit + shift * index * (rng.random(n_images) < 0.6) + rng.normal(0, 0.15, n_images)
                    probability = 1 / (1 + np.exp(-moved))
                    parts.append(pd.DataFrame(base | {"level": level, "draw": draw, "probability": probability}))
    return pd.concat(parts, ignore_index=True)


def make_image(size, rng, brightness=0.0, shadow=0.0):
    """Something like a chest: body, two lungs, ribs, spine, heart; `shadow` adds a soft-tissue crescent low down."""
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    body = 1 / (1 + np.exp(18 * ((x / 0.86) ** 2 + (y / 1.15) ** 2 - 1)))
    lungs = sum(np.exp(-((((x - side) / 0.27) ** 2 + ((y + 0.1) / 0.6) ** 2) ** 2)) for side in (-0.4, 0.4))
    ribs = np.clip(np.sin(17 * y + 6 * np.abs(x) ** 1.5), 0, 1) ** 3
    heart = np.exp(-((((x - 0.12) / 0.3) ** 2 + ((y - 0.32) / 0.27) ** 2) ** 2))
    spine = np.exp(-((x / 0.08) ** 2))
    crescent = sum(np.exp(-(((x - side) / 0.25) ** 2 + ((y - 0.35) / 0.2) ** 2)) for side in (-0.42, 0.42))
    bones = 0.16 + brightness
    picture = body * (0.6 - 0.47 * lungs + bones * ribs * lungs + 0.25 * heart + 0.2 * spine + shadow * crescent)
    return picture + 0.02 * rng.standard_normal((size, size))


def make_gallery(n=6, *, size=64, levels=SEXES, attribute="sex"):
    strips = []
    for index in range(n):
        rng = np.random.default_rng(index)

        def draw(position, rng=rng):
            picture = make_image(size, rng, 0.07 * position, 0.13 * (len(levels) - 1 - position))
            return (np.clip(picture, 0, 1) * 255).round().astype(np.uint8)

        factual = levels[index % len(levels)]
        redrawn = {level: draw(position) for position, level in enumerate(levels)}
        strips.append(Strip(f"Image {index + 1}", factual, draw(levels.index(factual)), redrawn))
    return Gallery(tuple(strips), attribute, "Chosen at random with seed 0, before any result was known.")
