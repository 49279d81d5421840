"""The page as a PDF: by WeasyPrint, or by a Chromium that is on the machine, whichever the user asks for."""

import logging
import os
import re
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from citlr.errors import InputError, MissingExtraError, require_known
from citlr.run.files import atomic_write

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
SYSTEM = "libpango-1.0-0 libpangoft2-1.0-0 libharfbuzz-subset0"
_PATIENCE = 300  # seconds that a browser may take


def write_pdf(page: str, path: str | os.PathLike[str], *, engine: str = "weasyprint") -> Path:
    """Write a page of this package as a PDF, atomically; nothing is loaded from anywhere."""
    engines: dict[str, Callable[[str, Path], None]] = {"weasyprint": _by_weasyprint, "chromium": _by_chromium}
    require_known(engine, engines, f"There is no PDF engine '{engine}'")
    with atomic_write(path) as temporary:
        engines[engine](page, temporary)
    return Path(path)


def _by_weasyprint(page: str, path: Path) -> None:
    try:
        with warnings.catch_warnings():
            # Said where the system lacks what a future WeasyPrint needs: this one writes whole PDFs without it.
            warnings.filterwarnings("ignore", message="HarfBuzz-Subset", category=DeprecationWarning)
            import weasyprint
            from weasyprint.urls import URLFetcher
    except ImportError as error:
        raise MissingExtraError("weasyprint", "pdf", "Writing a PDF") from error
    except OSError as error:
        raise InputError(
            f"WeasyPrint is installed and cannot load Pango ({error}): install the system packages ({SYSTEM} on Debian "
            "and Ubuntu, pango elsewhere), or say --pdf-engine chromium."
        ) from error
    with _quiet("weasyprint"):
        # The pictures that the page holds itself, and nothing from a disk or a network.
        fetcher = URLFetcher(allowed_protocols={"data"})
        weasyprint.HTML(string=drawable(page), url_fetcher=fetcher).write_pdf(path)


def drawable(page: str) -> str:
    """Put the rules for drawings into every drawing, colours resolved: WeasyPrint styles an SVG by its inside only."""
    from citlr.report.page import drawing_rules, stylesheet

    # Of the sheet and not of the page, whose title may have any sign.
    colours = dict(re.findall(r"--([\w-]+):\s*([^;]+);", stylesheet().partition("}")[0]))
    rules = re.sub(r"var\(--([\w-]+)\)", lambda found: colours[found.group(1)], drawing_rules())
    return re.sub(r"<svg\b[^>]*>", lambda found: f"{found.group(0)}<style>{rules}</style>", page)


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Keep a library's warnings (here: CSS for screens, which it leaves out) from the user's terminal for a while."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def find_browser() -> str:
    """Return the path of a Chromium on this machine, empty where there is none."""
    return next((found for name in BROWSERS if (found := shutil.which(name))), "")


def _by_chromium(page: str, path: Path) -> None:
    browser = find_browser()
    if not browser:
        raise InputError(
            f"No Chromium on the PATH (looked for {', '.join(BROWSERS)}): install one, or leave --pdf-engine out and "
            "use WeasyPrint (pip install 'citlr[pdf]')."
        )
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "audit.html"
        source.write_text(page, encoding="utf-8")
        command = [
            browser,
            "--headless",
            "--disable-gpu",
            f"--user-data-dir={folder}/profile",
            "--no-pdf-header-footer",
        ]
        # Chromium's own sandbox does not start for root, as in most containers; the page loads nothing from outside.
        command += ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        try:
            subprocess.run(
                [*command, f"--print-to-pdf={path.resolve()}", source.as_uri()],
                capture_output=True,
                check=True,
                timeout=_PATIENCE,
            )
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            raise InputError(f"'{browser}' could not print the page ({error}): try WeasyPrint instead.") from error
    if not path.is_file():
        raise InputError(f"'{browser}' ended without printing the page: try WeasyPrint instead.")
