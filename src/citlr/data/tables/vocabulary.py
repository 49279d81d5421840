"""From what data sets write to what a study says: sex, race, ethnicity, age and view, by explicit tables.

Whole strings are looked up, never parts of them: "Caucasian" contains "asian". A string that a table does not hold is
not guessed at: it is listed with its count and stops the run, or becomes `unknown` where the caller allows that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import pandas as pd

from citlr.errors import InputError

UNKNOWN = "unknown"
SEXES = ("female", "male")
RACES = ("white", "black", "asian", "other", UNKNOWN)
# The publication studies these three, self-reported.
STUDY_RACES = ("white", "black", "asian")
ETHNICITIES = ("hispanic", "non-hispanic", UNKNOWN)
# De-identified data sets write every age from here on as one value (CheXpert 90, MIMIC-IV 91, HIPAA "90 or older").
AGE_CAP = 90.0
# Older than anyone: a typing error (NIH 2017 has ages above 400).
OLDEST = 120.0

SEX: Mapping[str, str] = {
    "f": "female",
    "female": "female",
    "woman": "female",
    "w": "female",
    "weiblich": "female",
    "m": "male",
    "male": "male",
    "man": "male",
    "männlich": "male",
    "o": UNKNOWN,
    "other": UNKNOWN,
    "u": UNKNOWN,
    "unknown": UNKNOWN,
    "": UNKNOWN,
}

RACE_CHEXPERT: Mapping[str, str] = {
    "white": "white",
    "white, non-hispanic": "white",
    "white, hispanic": "white",
    "white or caucasian": "white",
    "black or african american": "black",
    "black, non-hispanic": "black",
    "black, hispanic": "black",
    "asian": "asian",
    "asian, non-hispanic": "asian",
    "asian, hispanic": "asian",
    "asian - historical conv": "asian",
    "other": "other",
    "other, hispanic": "other",
    "other, non-hispanic": "other",
    "native hawaiian or other pacific islander": "other",
    "pacific islander, non-hispanic": "other",
    "pacific islander, hispanic": "other",
    "american indian or alaska native": "other",
    "native american, non-hispanic": "other",
    "native american, hispanic": "other",
    "unknown": UNKNOWN,
    "race and ethnicity unknown": UNKNOWN,
    "patient refused": UNKNOWN,
    "": UNKNOWN,
}

ETHNICITY_CHEXPERT: Mapping[str, str] = {
    "hispanic/latino": "hispanic",
    "hispanic": "hispanic",
    "non-hispanic/non-latino": "non-hispanic",
    "not hispanic": "non-hispanic",
    "unknown": UNKNOWN,
    "patient refused": UNKNOWN,
    "": UNKNOWN,
}

# Where the race says it too; used where the ethnicity itself is blank.
ETHNICITY_IN_RACE_CHEXPERT: Mapping[str, str] = {
    raw: "non-hispanic" if raw.endswith(", non-hispanic") else "hispanic" if raw.endswith(", hispanic") else UNKNOWN
    for raw in RACE_CHEXPERT
}

# MIMIC-IV v1 `ethnicity` (8 values) and v2 `race` (33 values); one question asks for both race and ethnicity.
RACE_MIMIC: Mapping[str, str] = {
    "white": "white",
    "white - other european": "white",
    "white - russian": "white",
    "white - eastern european": "white",
    "white - brazilian": "white",
    "black/african american": "black",
    "black/cape verdean": "black",
    "black/caribbean island": "black",
    "black/african": "black",
    "asian": "asian",
    "asian - chinese": "asian",
    "asian - south east asian": "asian",
    "asian - asian indian": "asian",
    "asian - korean": "asian",
    "portuguese": "other",
    "hispanic or latino": "other",
    "hispanic/latino": "other",
    "hispanic/latino - puerto rican": "other",
    "hispanic/latino - dominican": "other",
    "hispanic/latino - guatemalan": "other",
    "hispanic/latino - salvadoran": "other",
    "hispanic/latino - columbian": "other",
    "hispanic/latino - honduran": "other",
    "hispanic/latino - cuban": "other",
    "hispanic/latino - mexican": "other",
    "hispanic/latino - central american": "other",
    "south american": "other",
    "american indian/alaska native": "other",
    "native hawaiian or other pacific islander": "other",
    "multiple race/ethnicity": "other",
    "other": "other",
    "unknown": UNKNOWN,
    "unable to obtain": UNKNOWN,
    "patient declined to answer": UNKNOWN,
    "": UNKNOWN,
}

# Who says "white" there was not asked whether he is Hispanic as well, so everyone else is unknown, not non-Hispanic.
ETHNICITY_MIMIC: Mapping[str, str] = {raw: "hispanic" if raw.startswith("hispanic") else UNKNOWN for raw in RACE_MIMIC}

VIEW: Mapping[str, str] = {
    "ap": "AP",
    "pa": "PA",
    "frontal": "frontal",
    # PadChest: lying down, from the front.
    "ap_horizontal": "AP",
    "antero-posterior": "AP",
    "anteroposterior": "AP",
    "postero-anterior": "PA",
    "posteroanterior": "PA",
    "ll": "lateral",
    "rl": "lateral",
    "l": "lateral",
    "lat": "lateral",
    "lateral": "lateral",
    "left lateral": "lateral",
    "right lateral": "lateral",
    "xtable lateral": "lateral",
    "swimmers": "lateral",
    # Neither frontal nor lateral: oblique, decubitus, lordotic, ribs.
    "lao": "other",
    "rao": "other",
    "lpo": "other",
    "rpo": "other",
    "ap axial": "other",
    "ap lld": "other",
    "ap rld": "other",
    "pa lld": "other",
    "pa rld": "other",
    "lld": "other",
    "rld": "other",
    "costal": "other",
    "exclude": "other",
    "unk": UNKNOWN,
    "unknown": UNKNOWN,
    "": UNKNOWN,
}
FRONTAL = ("AP", "PA", "frontal")

# Upper case. An age is a number, its unit (years without one), and a mark where it is a lower bound.
_AGE = (
    r"^[>=]*\s*(?P<number>\d+(?:\.\d+)?)\s*"
    r"(?P<unit>Y(?:EARS?|RS?)?|M(?:ONTHS?)?|W(?:EEKS?)?|D(?:AYS?)?)?\s*(?P<open>\+?)$"
)

Policy = Literal["drop", "first", "majority"]
POLICIES: tuple[Policy, ...] = ("drop", "first", "majority")


def raw_text(values: pd.Series) -> pd.Series:
    """Give cells as text, blanks as the empty string, as they are counted and looked up."""
    return values.astype("string").fillna("").str.strip().astype(str)


def translate(
    values: pd.Series, table: Mapping[str, str], *, source: str, what: str, allow_unknown: bool = False
) -> pd.Series:
    """Look every value up, ignoring case; the result holds names only.

    Examples
    --------
    >>> translate(pd.Series(["White or Caucasian", "Asian"]), RACE_CHEXPERT, source="a.csv", what="race").tolist()
    ['white', 'asian']
    """
    text = raw_text(values)
    # Few distinct values among many rows: look each up once.
    codes, distinct = pd.factorize(text)
    names = [table.get(str(value).lower()) for value in distinct]
    strange = [str(value) for value, name in zip(distinct, names, strict=True) if name is None]
    if strange and not allow_unknown:
        counts = text[text.isin(strange)].value_counts()
        listed = ", ".join(f"'{value}' ({count})" for value, count in counts.items())
        raise InputError(
            f"{source} holds values of {what} that no table of the vocabulary knows: {listed}. "
            "Map them, or let them count as unknown with --allow-unknown."
        )
    named = np.asarray([UNKNOWN if name is None else name for name in names], dtype=object)
    return pd.Series(named[codes], index=values.index, name=values.name).astype(str)


def read_age(
    values: pd.Series, *, source: str, zero_is_missing: bool = False, cap: float | None = AGE_CAP
) -> pd.Series:
    """Read ages as years: numbers, DICOM age strings (`060Y`, `018M`, `006W`, `010D`) and caps (`89+`, `>89`).

    Examples
    --------
    >>> read_age(pd.Series(["060Y", "6M", "45", "89+", "414", None]), source="a.csv").tolist()
    [60.0, 0.5, 45.0, 90.0, nan, nan]
    """
    # Few distinct ages among many rows: read each once.
    codes, distinct = pd.factorize(raw_text(values).str.upper())
    text = pd.Series(np.asarray(distinct, dtype=object), dtype=str)
    parts = text.str.extract(_AGE)
    strange = (parts["number"].isna() & (text != "")).to_numpy(dtype=bool)
    if strange.any():
        bad = values[strange[codes]]
        raise InputError(
            f"{source}: the column '{values.name}' holds {len(bad)} values that are no age, the first in row "
            f"{bad.index[0] + 1}: '{str(bad.iloc[0])[:80]}'. Years (60, 60.5), 060Y, 018M, 006W, 010D and 89+ are read."
        )
    years = pd.to_numeric(parts["number"], errors="coerce").astype(float)
    unit: pd.Series = parts["unit"].fillna("").str[:1]
    age: pd.Series = years / unit.map({"Y": 1.0, "": 1.0, "M": 12.0, "W": 365.25 / 7, "D": 365.25}).astype(float)
    age = age.mask(age > OLDEST)
    if zero_is_missing:
        age = age.mask(age == 0)
    above = (parts["open"].fillna("") != "").to_numpy(dtype=bool) | text.str.startswith(">").to_numpy(dtype=bool)
    # De-identified tables write "89+" or ">89" of everybody older, and that is all that they say.
    age = age.mask(above & (age == 89), AGE_CAP)
    if cap is not None:
        age = age.mask((age >= cap) | (age > 89), cap)
    return pd.Series(age.to_numpy()[codes], index=values.index, name=values.name)


def open_ended(values: pd.Series) -> pd.Series:
    """Tell which ages are lower bounds, such as `60+` and `>89`.

    Examples
    --------
    >>> open_ended(pd.Series(["60+", "60", ">89"])).tolist()
    [True, False, True]
    """
    text = raw_text(values)
    return text.str.endswith("+") | text.str.startswith(">")


def settle(frame: pd.DataFrame, *, key: str, value: str, policy: Policy) -> pd.DataFrame:
    """Give one row per key where several rows may disagree.

    Examples
    --------
    >>> visits = pd.DataFrame({"who": ["a", "a", "b"], "race": ["white", "asian", "black"]})
    >>> settle(visits, key="who", value="race", policy="drop").to_dict("list")
    {'who': ['a', 'b'], 'race': ['conflicting', 'black'], 'conflict': [True, False]}
    """
    if policy not in POLICIES:
        raise InputError(f"'{policy}' is not a policy for patients with several values; known: {', '.join(POLICIES)}.")
    known = frame[frame[value] != UNKNOWN]
    counts = known.groupby([key, value], sort=False).agg(n=(value, "size")).reset_index()
    counts["order"] = np.arange(len(counts))
    order = ["order"] if policy != "majority" else ["n", "order"]
    ascending = [True] if policy != "majority" else [False, True]
    best = counts.sort_values(order, ascending=ascending, kind="stable").drop_duplicates(key)
    everyone = frame[[key]].drop_duplicates().merge(best[[key, value]], on=key, how="left")
    everyone[value] = everyone[value].fillna(UNKNOWN)
    several = set(counts.loc[counts.duplicated(key), key])
    everyone["conflict"] = everyone[key].isin(several)
    if policy == "drop":
        everyone.loc[everyone["conflict"], value] = "conflicting"
    return everyone.reset_index(drop=True)
