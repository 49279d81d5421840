"""From what data sets write to what a study says: sex, race, ethnicity, age and view, by explicit tables.

Whole strings are looked up, never parts of them: "Caucasian" contains "asian". A string that a table does not hold is
not guessed at: it is listed with its count and stops the run, or becomes `unknown` where the caller allows that.
"""

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
# De-identified data sets write every age from here on as one value (CheXpert 90, MIMIC-IV 91, HIPAA "90 or older").
AGE_CAP = 90.0
# Older than anyone: a typing error (NIH 2017 has ages above 400).
OLDEST = 120.0

_TRUTH = {"true": 1.0, "false": 0.0, "yes": 1.0, "no": 0.0, "positive": 1.0, "negative": 0.0}


def _table(text: str) -> Mapping[str, str]:
    """Read lines of `level: spelling; spelling` as spelling to level; a blank is unknown."""
    named = (line.strip().split(": ", 1) for line in text.strip().splitlines())
    return {spelling: level for level, spellings in named for spelling in spellings.split("; ")} | {"": UNKNOWN}


SEX = _table(
    """
    female: f; female; woman; w; weiblich
    male: m; male; man; männlich
    unknown: o; other; u; unknown
    """
)

RACE_CHEXPERT = _table(
    """
    white: white; white, non-hispanic; white, hispanic; white or caucasian
    black: black or african american; black, non-hispanic; black, hispanic
    asian: asian; asian, non-hispanic; asian, hispanic; asian - historical conv
    other: other; other, hispanic; other, non-hispanic; american indian or alaska native
    other: native hawaiian or other pacific islander; pacific islander, non-hispanic; pacific islander, hispanic
    other: native american, non-hispanic; native american, hispanic
    unknown: unknown; race and ethnicity unknown; patient refused
    """
)

ETHNICITY_CHEXPERT = _table(
    """
    hispanic: hispanic/latino; hispanic
    non-hispanic: non-hispanic/non-latino; not hispanic
    unknown: unknown; patient refused
    """
)

# Where the race says it too; used where the ethnicity itself is blank.
ETHNICITY_IN_RACE_CHEXPERT: Mapping[str, str] = {
    raw: "non-hispanic" if raw.endswith(", non-hispanic") else "hispanic" if raw.endswith(", hispanic") else UNKNOWN
    for raw in RACE_CHEXPERT
}

# MIMIC-IV v1 `ethnicity` (8 values) and v2 `race` (33 values); one question asks for both race and ethnicity.
RACE_MIMIC = _table(
    """
    white: white; white - other european; white - russian; white - eastern european; white - brazilian
    black: black/african american; black/cape verdean; black/caribbean island; black/african
    asian: asian; asian - chinese; asian - south east asian; asian - asian indian; asian - korean
    other: portuguese; hispanic or latino; hispanic/latino; hispanic/latino - puerto rican; hispanic/latino - dominican
    other: hispanic/latino - guatemalan; hispanic/latino - salvadoran; hispanic/latino - columbian
    other: hispanic/latino - honduran; hispanic/latino - cuban; hispanic/latino - mexican
    other: hispanic/latino - central american; south american; american indian/alaska native
    other: native hawaiian or other pacific islander; multiple race/ethnicity; other
    unknown: unknown; unable to obtain; patient declined to answer
    """
)

# Who says "white" there was not asked whether he is Hispanic as well, so everyone else is unknown, not non-Hispanic.
ETHNICITY_MIMIC: Mapping[str, str] = {raw: "hispanic" if raw.startswith("hispanic") else UNKNOWN for raw in RACE_MIMIC}

# "ap_horizontal" is PadChest's: lying down, from the front. "other" is neither frontal nor lateral: oblique, decubitus,
# lordotic, ribs.
VIEW = _table(
    """
    AP: ap; ap_horizontal; ap view; ap supine; antero-posterior; anteroposterior
    PA: pa; pa view; postero-anterior; posteroanterior
    frontal: frontal; frontal view
    lateral: ll; rl; l; lat; lateral; lateral view; seitlich; left lateral; right lateral; xtable lateral; swimmers
    other: lao; rao; lpo; rpo; ap axial; ap lld; ap rld; pa lld; pa rld; lld; rld; costal; exclude
    unknown: unk; unknown
    """
)
FRONTAL = ("AP", "PA", "frontal")

# Upper case. An age is a number, its unit (years without one), and a mark where it is a lower bound.
_AGE = (
    r"^[>=]*\s*(?P<number>[0-9]+(?:\.[0-9]+)?)\s*"
    r"(?P<unit>Y(?:EARS?|RS?)?|M(?:ONTHS?)?|W(?:EEKS?)?|D(?:AYS?)?)?\s*(?P<open>\+|(?:OR|AND) (?:OLDER|OVER|ABOVE))?$"
)

Policy = Literal["drop", "first", "majority"]
POLICIES: tuple[Policy, ...] = ("drop", "first", "majority")


def raw_text(values: pd.Series) -> pd.Series:
    """Give cells as text, blanks as the empty string, as they are counted and looked up."""
    return values.astype("string").fillna("").str.strip().astype(str)


def translate(
    values: pd.Series, table: Mapping[str, str], *, source: str, what: str, allow_unknown: bool = False
) -> pd.Series:
    """Look every value up, ignoring case; the result holds names only."""
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
    """Read ages as years: numbers, DICOM age strings (`060Y`, `018M`, `006W`, `010D`) and caps (`89+`, `>89`)."""
    # Few distinct ages among many rows: read each once.
    codes, distinct = pd.factorize(age_text(values))
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


def age_text(values: pd.Series) -> pd.Series:
    """Give ages as text in upper case, with the digits of ASCII for those of full width, and `>=` for one sign."""
    return raw_text(values).str.normalize("NFKC").str.upper().str.replace("≥", ">=", regex=False)


def open_ended(values: pd.Series) -> pd.Series:
    """Tell which ages are lower bounds, such as `60+` and `>89`.

    >>> open_ended(pd.Series(["60+", "60", ">89", "90 or older"])).tolist()
    [True, False, True, True]
    """
    text = age_text(values)
    return (text.str.extract(_AGE)["open"].fillna("") != "") | text.str.startswith(">")


def findings(values: pd.Series) -> pd.Series:
    """Give findings as the numbers that they say, or NaN; whether they are 0 or 1 is for others to judge.

    >>> findings(pd.Series(["1", "Yes", "negative", "", "-1", "perhaps"])).tolist()
    [1.0, 1.0, 0.0, nan, -1.0, nan]
    """
    text = values.astype("string").str.strip().str.lower()
    numbers = text.map(_TRUTH).astype("Float64").fillna(pd.to_numeric(text, errors="coerce").astype("Float64"))
    return pd.Series(numbers.to_numpy(dtype=float, na_value=np.nan), index=values.index, name=values.name)


def resolve(frame: pd.DataFrame, *, key: str, value: str, policy: Policy) -> pd.DataFrame:
    """Give one row per key where several rows may disagree."""
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
