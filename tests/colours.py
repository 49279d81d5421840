"""Small data sets in colour whose counterfactuals are known, in the layouts of the public ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from citlr.data.cohort import Cohort

SIDE = 32
# What being male does to the tone of the skin here, in red, green and blue: a change of hue with hardly any luminance.
TONE = np.asarray([0.16, -0.09, 0.06], np.float32).reshape(3, 1, 1)


def skin(number: int, *, male: bool, spot: bool, side: int = SIDE) -> npt.NDArray[np.float32]:
    """One picture (3, side, side): skin of a tone of its own, a dark spot where there is a finding, hairs of noise."""
    random = np.random.default_rng((7, number))
    y, x = np.mgrid[:side, :side] / side
    base = np.asarray([0.72, 0.55, 0.45]) + random.normal(0, 0.03)
    shade = 0.12 * np.cos(3 * x + random.uniform(0, 6)) * np.sin(2 * y + random.uniform(0, 6))
    mole = np.exp(-((x - 0.5) ** 2 + (y - 0.5) ** 2) / 0.02) * (0.35 if spot else 0.12)
    image = base[:, None, None] + shade - mole * np.asarray([0.8, 1.0, 0.9])[:, None, None]
    image = image + random.normal(0, 0.01, (3, side, side)) + (TONE if male else 0)
    return np.clip(image, 0, 1).astype(np.float32)


def save(file: Path, image: npt.NDArray[np.float32], mode: str = "RGB") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray((image.transpose(1, 2, 0) * 255).round().astype(np.uint8)).convert(mode)
    picture.save(file, quality=98) if file.suffix == ".jpg" else picture.save(file)


def sides(number: int) -> tuple[bool, bool]:
    """Whether the person is male and has the finding."""
    return number % 2 == 1, (number // 2) % 2 == 1


def ham10000(root: Path, lesions: int = 160, name: str = "HAM10000_metadata.csv") -> Path:
    """HAM10000: a table of images by lesion, pictures in two folders; every tenth lesion has two of them."""
    rows = []
    for number in range(lesions):
        male, spot = sides(number)
        for view in range(2 if number % 10 == 0 else 1):
            image = f"ISIC_{24306 + 10 * number + view:07d}"
            save(root / f"HAM10000_images_part_{1 + number % 2}" / f"{image}.jpg", skin(number, male=male, spot=spot))
            rows.append(
                {
                    "lesion_id": f"HAM_{number:07d}",
                    "image_id": image,
                    "dx": "mel" if spot else ("nv", "bkl")[number % 3 == 0],
                    "dx_type": "histo",
                    "age": "" if number == 5 else float(30 + number % 50),
                    "sex": "unknown" if number == 7 else "male" if male else "female",
                    "localization": ("back", "face")[number % 3 == 0],
                }
            )
    pd.DataFrame(rows).to_csv(root / name, index=False, sep="\t" if name.endswith(".tab") else ",")
    return root


def odir5k(root: Path, patients: Sequence[int] = range(48), *, kaggle: bool = False) -> Path:
    """ODIR-5K: a row per patient with two pictures and keywords; Kaggle's table has that row once for each eye."""
    rows = []
    for number in patients:
        male, spot = sides(number)
        row = {"ID": number, "Patient Age": 40 + number % 40, "Patient Sex": "Male" if male else "Female"}
        for side, word in (
            ("Left", "normal fundus"),
            ("Right", "cataract" if spot else "lens dust\uff0cnormal fundus"),
        ):
            row[f"{side}-Fundus"] = f"{number}_{side.lower()}.jpg"
            row[f"{side}-Diagnostic Keywords"] = "low image quality" if number == 9 and side == "Left" else word
            save(root / "ODIR-5K_Training_Images" / row[f"{side}-Fundus"], skin(number, male=male, spot=spot))
        rows.append({**row, **{letter: int(spot if letter == "C" else letter == "D") for letter in "NDGCAHMO"}})
        rows[-1]["D"] = number % 2
        rows[-1]["G"] = int(number % 5 == 0)
    table = pd.DataFrame(rows)
    if kaggle:
        twice = table.loc[table.index.repeat(2)].reset_index(drop=True)
        names = [row[f"{side}-Fundus"] for row in rows for side in ("Left", "Right")]
        twice.assign(filename=names, labels="['N']").to_csv(root / "full_df.csv", index=False)
    else:
        table.to_excel(root / "data.xlsx", index=False)
    return root


def fitzpatrick17k(root: Path, images: int = 60) -> Path:
    """Fitzpatrick17k: a table by the MD5 of the pictures, skin types 1 to 6 and -1 for unknown."""
    rows = []
    for number in range(images):
        male, spot = sides(number)
        name = f"{number:032x}"
        save(root / "images" / f"{name}.jpg", skin(number, male=male, spot=spot))
        kind = ("non-neoplastic", "benign")[number % 3 == 0]
        rows.append(
            {
                "md5hash": name,
                "fitzpatrick_scale": -1 if number == 4 else number % 6 + 1,
                "fitzpatrick_centaur": number % 6 + 1,
                "label": "melanoma" if spot else "acne",
                "nine_partition_label": "malignant melanoma" if spot else "inflammatory",
                "three_partition_label": "malignant" if spot else kind,
                "qc": "3 Wrongly labelled" if number == 5 else "",
                "url": "",
                "url_alphanum": "",
            }
        )
    pd.DataFrame(rows).to_csv(root / "fitzpatrick17k.csv", index=False)
    return root


def cohort(root: Path, lesions: int, *, side: int = SIDE) -> Cohort:
    """The pictures of `ham10000`, one a lesion, without loss and with a split: a cohort in colour."""
    rows = []
    for number in range(lesions):
        male, spot = sides(number)
        save(root / f"{number}.png", skin(number, male=male, spot=spot, side=side))
        rows.append((f"{number}", f"{number}.png", f"p{number}", "male" if male else "female", float(spot)))
    frame = pd.DataFrame(rows, columns=["image_id", "path", "patient_id", "sex", "mel"])
    frame["split"] = [("train", "train", "train", "validation", "test")[(number // 4) % 5] for number in range(lesions)]
    return Cohort(frame, root, attributes=("sex",), labels=("mel",), channels=3)
