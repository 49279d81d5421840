"""What a command says where nobody listens, or an encoding lacks the signs: no traceback, and no other status."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FULL = Path("/dev/full")
# A verb that takes no time, in the place of all verbs; Typer around it, which has its own mind of closed pipes.
VERB = """
import sys, types, typer
from citlr.cli.main import main
from citlr.console import Narrator
verb = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
@verb.command()
def run(status: int = 0, long: bool = False) -> None:
    narrator = Narrator(quiet=False)
    narrator.say("grün")
    with narrator.progress("bar", 2) as tick:
        tick(2)
    print("mödel: Größe \u2265 5" + "\\n" * (200_000 if long else 0))
    raise typer.Exit(status)
sys.modules["citlr.cli.app"] = types.SimpleNamespace(app=verb)
main()
"""


def citlr(shell: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run the verb in a shell, `$0` being the command."""
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.run(
        ["bash", "-c", shell, "bash", sys.executable, "-c", VERB, *arguments],
        capture_output=True,
        check=False,
        env={**clean, **environment},
    )


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_a_name_that_an_encoding_lacks_is_spelt_out(encoding: str) -> None:
    done = citlr('"$@"', "--status", "1", PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr.count(b"Traceback")) == (1, 0)
    said = done.stdout.decode(encoding)
    assert said.strip() in ("m\\xf6del: Gr\\xf6\\xdfe \\u2265 5", "mödel: Größe \\u2265 5")


def test_in_utf_8_a_name_stays_as_it_is() -> None:
    assert citlr('"$@"', PYTHONUTF8="1").stdout.decode().strip() == "mödel: Größe \u2265 5"


@pytest.mark.skipif(not FULL.exists(), reason="there is no device that is always full")
def test_progress_that_cannot_be_written_ends_nothing() -> None:
    for where in ("2> /dev/full", "2>&-"):
        for status in ("0", "1"):
            done = citlr(f'"$@" {where}', "--status", status)
            assert (done.returncode, done.stdout.decode().strip()) == (int(status), "mödel: Größe \u2265 5"), where


@pytest.mark.skipif(not FULL.exists(), reason="there is no device that is always full")
def test_a_result_that_cannot_be_written_is_said() -> None:
    done = citlr('"$@" > /dev/full')
    assert done.returncode == 2
    assert b"citlr: The disk is full" in done.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [("--long",), ("--status", "1", "--long")])
def test_a_reader_that_is_gone_is_not_told_as_the_gates_no(arguments: tuple[str, ...], unbuffered: str) -> None:
    done = citlr('"$@" | true; exit ${PIPESTATUS[0]}', *arguments, PYTHONUNBUFFERED=unbuffered)
    assert (done.returncode, done.stderr.count(b"Traceback")) == (141, 0)


def test_results_that_are_short_leave_the_status_what_it_is() -> None:
    for status in ("0", "1"):
        done = citlr('"$@" | true; exit ${PIPESTATUS[0]}', "--status", status)
        assert (done.returncode, done.stderr.count(b"Error")) == (int(status), 0)
