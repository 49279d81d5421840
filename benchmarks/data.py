"""How fast are tables joined and radiographs decoded? Prints one line per claim, with its reference in the same run.

    python benchmarks/data.py                          tables written here, and images if they are found
    python benchmarks/data.py --images ../shared/data/nih_cxr14_1000_256px/images --size 64

Tables: seconds (wall and process) and peak memory of a fresh process that prepares a cohort from tables of the public
size, without looking for the image files.
Images: a plain loop (Pillow, then torchvision's ToTensor and antialiased Resize on one thread) against `Cohort.batches`
on two, and against the cache; medians of alternating rounds, so that a busy machine disturbs both alike.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from citlr.data.cohort import Cohort
from citlr.data.pixels.cache import write_cache
from citlr.data.prepared import write_prepared
from citlr.data.sources.chexpert import LABELS, prepare_chexpert
from citlr.data.sources.mimic_cxr import prepare_mimic_cxr
from citlr.data.sources.study import Study
from citlr.data.tables.vocabulary import RACE_CHEXPERT, RACE_MIMIC

TABLES_ONLY = Study(check="none")


def label_columns(rng: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
    values = np.array(["1.0", "0.0", "-1.0", ""], dtype=object)
    return {label: values[rng.choice(4, rows, p=[0.2, 0.1, 0.05, 0.65])] for label in LABELS}


def write_chexpert(root: Path) -> None:
    rng = np.random.default_rng(0)
    rows, patients = 223_414, 64_540
    patient = np.sort(rng.integers(1, patients + 1, rows))
    frontal = rng.random(rows) < 0.85
    study = rng.integers(1, 10, rows)
    names = [
        f"CheXpert-v1.0-small/train/patient{one:05d}/study{visit}/view{row}_{'frontal' if front else 'lateral'}.jpg"
        for row, (one, visit, front) in enumerate(zip(patient, study, frontal, strict=True))
    ]
    sex = rng.choice(["Male", "Female"], patients + 1)
    table = {"Path": names, "Sex": sex[patient], "Age": rng.integers(18, 91, patients + 1)[patient]}
    table["Frontal/Lateral"] = np.where(frontal, "Frontal", "Lateral")
    table["AP/PA"] = np.where(frontal, rng.choice(["AP", "PA"], rows), "")
    pd.DataFrame({**table, **label_columns(rng, rows)}).to_csv(root / "train.csv", index=False)
    races = rng.choice([name.title().replace(" Or ", " or ") for name in RACE_CHEXPERT], patients)
    people = {"PATIENT": [f"patient{one:05d}" for one in range(1, patients + 1)], "GENDER": sex[1:]}
    people.update({"AGE_AT_CXR": 50, "PRIMARY_RACE": races, "ETHNICITY": "Not Hispanic"})
    pd.DataFrame(people).to_excel(root / "CHEXPERT DEMO.xlsx", index=False)


def write_mimic(root: Path) -> None:
    rng = np.random.default_rng(0)
    subjects, studies, rows, visits = 65_379, 227_835, 377_110, 431_231
    subject = 10_000_000 + np.sort(rng.choice(10_000_000, subjects, replace=False))
    owner = rng.integers(0, subjects, studies)
    study = 50_000_000 + np.arange(studies)
    which = np.sort(rng.integers(0, studies, rows))
    dicom = [f"{one:08x}-{one * 7 % 2**32:08x}-1b2c3d4e-5f6a7b8c-9d0e1f2a" for one in range(rows)]
    view = rng.choice(["AP", "PA", "LATERAL", "LL", ""], rows, p=[0.39, 0.25, 0.12, 0.2, 0.04])
    meta = {"dicom_id": dicom, "subject_id": subject[owner[which]], "study_id": study[which]}
    meta.update({"PerformedProcedureStepDescription": "CHEST (PA AND LAT)", "ViewPosition": view, "Rows": 3056})
    meta.update(
        {"Columns": 2544, "StudyDate": 21_500_101, "StudyTime": 1.0, "ProcedureCodeSequence_CodeMeaning": "CHEST"}
    )
    meta.update({"ViewCodeSequence_CodeMeaning": "", "PatientOrientationCodeSequence_CodeMeaning": "Erect"})
    pd.DataFrame(meta).to_csv(
        root / "mimic-cxr-2.0.0-metadata.csv.gz", index=False, compression={"method": "gzip", "compresslevel": 1}
    )
    labels = {"subject_id": subject[owner], "study_id": study, **label_columns(rng, studies)}
    pd.DataFrame(labels).to_csv(root / "mimic-cxr-2.0.0-chexpert.csv.gz", index=False)
    side = np.where(owner[which] % 50 == 0, "test", np.where(owner[which] % 50 == 1, "validate", "train"))
    split = {"dicom_id": dicom, "study_id": meta["study_id"], "subject_id": meta["subject_id"], "split": side}
    pd.DataFrame(split).to_csv(root / "mimic-cxr-2.0.0-split.csv.gz", index=False)
    (root / "hosp").mkdir()
    # MIMIC-IV has patients without radiographs as well.
    everyone = np.concatenate([subject, 21_000_000 + np.arange(235_000)])
    people = {"subject_id": everyone, "gender": rng.choice(["M", "F"], len(everyone))}
    people.update({"anchor_age": rng.integers(18, 92, len(everyone)), "anchor_year": 2148})
    people.update({"anchor_year_group": "2014 - 2016", "dod": ""})
    pd.DataFrame(people).to_csv(root / "hosp/patients.csv.gz", index=False)
    words = np.array([word.upper() for word in RACE_MIMIC if word], dtype=object)
    usual = rng.integers(0, len(words), len(everyone))
    who = rng.integers(0, len(everyone), visits)
    race = np.where(rng.random(visits) < 0.05, rng.integers(0, len(words), visits), usual[who])
    stay = {"subject_id": everyone[who], "hadm_id": 20_000_000 + np.arange(visits)}
    stay["admittime"] = [f"21{one % 90 + 10}-03-01 12:00:00" for one in range(visits)]
    stay.update({"admission_type": "EW EMER.", "insurance": "Other", "language": "ENGLISH", "race": words[race]})
    pd.DataFrame(stay).to_csv(root / "hosp/admissions.csv.gz", index=False)


def one_table(name: str, root: Path) -> None:
    """Run in a process of its own, so that its memory is its own."""
    start = time.perf_counter()
    if name == "chexpert":
        cohort = prepare_chexpert(root, study=TABLES_ONLY)
    else:
        cohort = prepare_mimic_cxr(root, mimic_iv=root, study=TABLES_ONLY)
    write_prepared(cohort, root / "out")
    usage = resource.getrusage(resource.RUSAGE_SELF)
    report = {
        "wall_s": time.perf_counter() - start,
        "process_s": time.process_time(),
        "peak_mb": usage.ru_maxrss / 1024,
        "rows": cohort.flow[0].n_images,
        "kept": len(cohort),
    }
    print(json.dumps(report))


def tables(rounds: int) -> None:
    for name, write, limit in (("chexpert", write_chexpert, 10), ("mimic", write_mimic, 25)):
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder))
            runs = []
            for _ in range(rounds):
                command = [sys.executable, __file__, "--one", name, "--root", folder]
                runs.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
        wall = np.median([run["wall_s"] for run in runs])
        process = np.median([run["process_s"] for run in runs])
        peak = max(run["peak_mb"] for run in runs)
        print(
            f"{name}: {runs[0]['rows']} rows, {runs[0]['kept']} kept; wall {wall:.1f} s, process {process:.1f} s (with "
            f"imports; limit {limit} s), peak {peak:.0f} MB (limit 2048 MB)"
        )


def images(folder: Path, size: int, count: int, rounds: int) -> None:
    import torch
    from PIL import Image
    from torchvision import transforms

    torch.set_num_threads(1)
    files = sorted(file for file in folder.iterdir() if file.suffix in (".png", ".jpg"))
    files = (files * (count // max(1, len(files)) + 1))[:count]
    frame = pd.DataFrame({"path": [file.name for file in files]})
    frame = frame.assign(image_id=[str(row) for row in range(count)], patient_id="p", sex="f")
    cohort = Cohort(frame, folder, attributes=("sex",), labels=())
    resize = transforms.Compose([transforms.ToTensor(), transforms.Resize((size, size), antialias=True)])

    def plain() -> None:
        for file in files:
            resize(Image.open(file).convert("L"))

    first = np.stack([resize(Image.open(file).convert("L")).numpy() for file in files[:200]])
    off = 255 * np.abs(cohort.pixels(np.arange(min(200, count)), size=size) - first)
    print(
        f"pixels against torchvision's: off by {off.max():.2f} of 255 grey levels at most, {off.mean():.2f} on average"
    )

    def through(source: Cohort, workers: int) -> Callable[[], None]:
        def run() -> None:
            for _ in source.batches(size=size, batch_size=64, workers=workers):
                pass

        return run

    with tempfile.TemporaryDirectory() as place:
        cached = write_cache(cohort, Path(place) / "cache", size=size)
        ways = {"plain": plain, "one": through(cohort, 1), "two": through(cohort, 2), "cache": through(cached, 1)}
        wall: dict[str, list[float]] = {name: [] for name in ways}
        process: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, run in ways.items():
                start, spent = time.perf_counter(), time.process_time()
                run()
                wall[name].append(time.perf_counter() - start)
                process[name].append(time.process_time() - spent)
    for name, title, limit in (
        ("one", "1 thread", ""),
        ("two", "2 threads", ", limit 3"),
        ("cache", "cache", ", limit 20"),
    ):
        ratio = np.median(np.divide(wall["plain"], wall[name]))
        work = np.median(np.divide(process["plain"], process[name]))
        milli = 1000 * np.median(process[name]) / count
        print(
            f"{count} radiographs to {size} x {size}, {title}: {ratio:.1f} times the plain loop by the clock{limit}"
            f"; {work:.1f} times by process time ({milli:.3f} ms an image)"
        )


def large_jpegs(folder: Path, size: int, rounds: int) -> None:
    """Measure what CheXpert and MIMIC-CXR-JPG look like: the same radiographs as JPEGs of 2048 x 2048."""
    from PIL import Image

    with tempfile.TemporaryDirectory() as place:
        for file in sorted(folder.glob("*.png"))[:40]:
            large = Image.open(file).convert("L").resize((2048, 2048), Image.Resampling.BICUBIC)
            large.save(Path(place) / f"{file.stem}.jpg", quality=90)
        images(Path(place), size, 40, rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, default=Path("../shared/data/nih_cxr14_1000_256px/images"))
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=["tables", "images"], help="Half of it.")
    parser.add_argument("--one", choices=["chexpert", "mimic"], help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    choice = parser.parse_args()
    if choice.one:
        one_table(choice.one, choice.root)
        return
    if choice.only != "images":
        tables(choice.rounds)
    if choice.only == "tables":
        return
    if choice.images.is_dir():
        images(choice.images, choice.size, choice.count, choice.rounds)
        print("JPEGs of 2048 x 2048:")
        large_jpegs(choice.images, choice.size, choice.rounds)
    else:
        print(f"No images at {choice.images}: decoding was not measured.")


if __name__ == "__main__":
    main()
