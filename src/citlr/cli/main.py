"""Entry point: every error of ours as one sentence and an exit status, from the first moment on.

Nothing but this file is imported before it listens for Ctrl-C: the verbs take a while to come.
"""

import errno
import io
import os
import signal
import sys
import threading
from contextlib import suppress
from types import FrameType
from typing import Any

from citlr.errors import CitlrError
from citlr.text import shortened

# What ended the process from outside; the sentence and the status are told of it, whatever it interrupted made of it.
_stopped: list[int] = []
# Seconds until a stop that was swallowed, by a destructor or a library's `except`, is asked for again.
AGAIN = 3.0


class Stop(KeyboardInterrupt):
    """A wish to stop.

    No plain KeyboardInterrupt: once one has left code that was given as a string, of which dataclasses are made,
    `python -m` ends by SIGINT whatever became of it.
    """


def main() -> None:
    """Run the command line: exit 0 done, 1 a gate said no, 2 bad input or usage, 130 Ctrl-C, 143 terminated.

    Who reads the results may be gone before all is written, as `head` is: 141 where that cut a verb off.
    """
    before: dict[int, Any] = {}
    try:
        # In here, for the signal may come as soon as it is listened to.
        _listen(before)
        _spell_out(sys.stdout, sys.stderr)
        from citlr.cli.app import app

        try:
            app()
        finally:
            _let_go(sys.stdout, sys.stderr)
    except BaseException as error:
        if _stopped:
            _insist(0.0)
            _tell("Stopped: what was finished stays; the same command goes on.")
            sys.exit(128 + _stopped[0])
        if isinstance(error, SystemExit) and isinstance(error.__context__, BrokenPipeError):
            sys.exit(128 + 13)  # Click says 1, which is the gate's
        sentence = _sentence(error)
        if sentence is None:
            raise
        _tell(sentence)
        sys.exit(2)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _tell(sentence: str) -> None:
    """Say it on standard error; where nobody listens, the status says it."""
    with suppress(OSError, ValueError):
        print(f"citlr: {sentence}", file=sys.stderr, flush=True)


def _sentence(error: BaseException) -> str | None:
    """Say what a user can act on; None for all else, a fault of this package among it."""
    if isinstance(error, CitlrError):
        return str(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
        return f"The disk is full ({shortened(str(error))}): free some space and run the same command again to go on."
    if isinstance(error, OSError):
        return f"The system refused a file ({shortened(str(error))}): correct its path or its permissions."
    if isinstance(error, UnicodeEncodeError):
        return (
            f"This system's encoding, {error.encoding}, cannot write {error.object[error.start : error.end]!a}: set "
            "PYTHONUTF8=1 and run the same command again."
        )
    if isinstance(error, MemoryError):
        return "The memory is full: ask for smaller images, batches or counts, or use a larger machine."
    # By its name, for torch may not be there yet; a training has halved its batch before it comes to that.
    if type(error).__name__ == "OutOfMemoryError" and isinstance(error, RuntimeError):
        return (
            "The memory of the GPU is full: what was finished stays; free it of other programs, or hide it "
            "(CUDA_VISIBLE_DEVICES=''), and run the same command again to go on."
        )
    return None


def _spell_out(*streams: Any) -> None:
    """Write what a stream's encoding has no sign for by its number: a name is no reason to lose a result."""
    for stream in streams:
        # In the C locale Python lets through what it could not decode, and nothing else.
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors="backslashreplace")


def _let_go(*streams: Any) -> None:
    """Write what is left; where nobody takes it any more, Python would turn the exit status into one of its own."""
    for stream in streams:
        try:
            stream.flush()
        except (AttributeError, ValueError):  # there is none, or it is closed
            continue
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            if stream is sys.stdout and not isinstance(error, BrokenPipeError):
                raise


def _listen(before: dict[int, Any]) -> None:
    """Take Ctrl-C and SIGTERM as a wish to stop in order, the second one at once; note what was there before."""

    def stop(number: int, frame: FrameType | None) -> None:
        if _stopped:
            os._exit(128 + number)
        _stopped.append(number)
        if hasattr(signal, "SIGALRM"):  # not on Windows
            # Only now: until somebody stops, alarms are the caller's or the model's.
            before[signal.SIGALRM] = signal.signal(signal.SIGALRM, again)
            _insist(AGAIN)
        raise Stop

    def again(number: int, frame: FrameType | None) -> None:
        raise Stop

    if threading.current_thread() is not threading.main_thread():
        return  # only the main thread may listen
    for number in (signal.SIGINT, signal.SIGTERM):
        handler = signal.getsignal(number)
        # What the caller has set aside, as nohup does, stays so.
        if handler in (signal.SIG_DFL, signal.default_int_handler):
            before[number] = handler
            signal.signal(number, stop)


def _insist(seconds: float) -> None:
    """Ask for a stop again every so many seconds; never again with 0."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds, seconds)
