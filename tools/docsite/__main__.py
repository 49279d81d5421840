"""Make the site, `python -m docsite` or `make docs`: pages are put together in `build/pages`, the site in `site/`."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from docsite import commands, links, python, schema, settings, tutorials

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "build" / "pages"
# What pages point to lies beside them as in the repository, so that the same links hold in both.
FOLDERS = ("docs", "examples")


def gather() -> None:
    """Copy what people wrote."""
    shutil.rmtree(PAGES, ignore_errors=True)
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, PAGES / folder, ignore=shutil.ignore_patterns("__pycache__", "tutorials"))
    for file in (*ROOT.glob("*.md"), ROOT / "LICENSE", ROOT / "CITATION.cff"):
        shutil.copy(file, PAGES)


def write_reference() -> None:
    """Write what the code says of itself."""
    folder = PAGES / "docs" / "reference"
    folder.mkdir(parents=True)
    made = {
        "settings": settings.page(),
        "commands": commands.page(),
        "python": python.page(),
        "audit-json": schema.page(),
    }
    for name, text in made.items():
        (folder / f"{name}.md").write_text(text, encoding="utf-8")
    (folder / "audit.schema.json").write_text(json.dumps(schema.schema(), indent=2) + "\n", encoding="utf-8")


def write_tutorials(*, execute: bool) -> None:
    """Run every tutorial, and say how long each took."""
    for source in sorted((ROOT / "docs" / "tutorials").glob("*.py")):
        start = time.monotonic()
        tutorials.run(source, PAGES / "docs" / "tutorials", execute=execute)
        print(f"{source.stem}: {time.monotonic() - start:.0f} s", flush=True)


def main() -> int:
    """Make the site and check its links; return the exit status."""
    options = argparse.ArgumentParser(prog="docsite", description=__doc__)
    options.add_argument(
        "--no-run", action="store_true", help="leave the tutorials without outputs: seconds, not minutes"
    )
    given = options.parse_args()
    gather()
    write_reference()
    write_tutorials(execute=not given.no_run)
    # The theme's author tells of his next program in the terminal.
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"], cwd=ROOT, check=False, env=environment
    )
    if done.returncode:
        return done.returncode
    found = links.broken(ROOT / "site")
    print(
        "\n".join(found)
        or f"site/index.html: {len(list((ROOT / 'site').rglob('*.html')))} pages, every link leads somewhere"
    )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
