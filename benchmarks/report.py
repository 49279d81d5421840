"""Time and size of the largest page that issue 8 names: 14 labels, 3 contrasts, 1000 images, 24 strips.

Run from the repository root:  PYTHONPATH=tests OMP_NUM_THREADS=1 python benchmarks/report.py

Prints this process's seconds on the processor and megabytes of the page, each with its ratio to the issue's limit
(10 s, 8 MB); a ratio below 1 keeps it. The audit is made up, its tables, points and pictures have full size.
"""

from __future__ import annotations

import time

from report_fake import FOURTEEN, RACES, make_gallery, make_responses, make_result

from citlr.report.page import render

LIMIT_SECONDS, LIMIT_MB = 10.0, 8.0


def main() -> None:
    result = make_result(FOURTEEN, RACES, "race")
    responses = make_responses(result, n_images=1000, draws=4)
    gallery = make_gallery(24, size=256, levels=RACES, attribute="race")
    start = time.process_time()
    page = render(result, responses=responses, gallery=gallery)
    seconds, size = time.process_time() - start, len(page.encode()) / 1e6
    print(f"render: {seconds:.2f} s of process time, {seconds / LIMIT_SECONDS:.2f} of the limit of {LIMIT_SECONDS:g} s")
    print(f"page:   {size:.2f} MB, {size / LIMIT_MB:.2f} of the limit of {LIMIT_MB:g} MB")


if __name__ == "__main__":
    main()
