"""Parts of one computation beside each other on the processor: threads that share nothing but beginning and end.

Threads of OpenMP wait for each other at every operation. Beside other programs each waits for the one that has to wait
for a processor, and many small operations are mostly waiting even alone.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import lru_cache
from typing import TypeVar

import torch

Part = TypeVar("Part")
Found = TypeVar("Found")
# Batches that are computed at a time, at most: each needs memory of its own.
AT_A_TIME = 4
# Seconds after which a thread that waits for Python's lock asks for it: operations of a small network take less than
# the five milliseconds that are usual.
SWITCH = 5e-4


def abreast(most: int) -> int:
    """Give how many parts are computed at a time: as many as there are threads, `most` at most."""
    return min(torch.get_num_threads(), most)


def beside(function: Callable[[Part], Found], parts: Sequence[Part], most: int = AT_A_TIME) -> list[Found]:
    """Call a function on each part, `abreast(most)` of them at a time, with or without gradients as the caller has it.

    Each part has the same number of OpenMP's threads, however many parts there are: one, unless there are twice as many
    threads as `most`. So a part's bits depend neither on its company nor, up to there, on the number of threads.
    """
    threads = torch.get_num_threads()
    if threads == 1:
        return [function(part) for part in parts]
    gradients = torch.is_grad_enabled()

    def called(part: Part) -> Found:
        with torch.set_grad_enabled(gradients):
            return function(part)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH)
    try:
        pool = _pool(abreast(most), threads // abreast(most))
        futures = [pool.submit(called, part) for part in parts]
        wait(futures)  # where one has failed too: what is tried next needs the memory of the others
        return [future.result() for future in futures]
    finally:
        sys.setswitchinterval(interval)


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute what is small with one thread: beside other programs, waiting for a second takes ten times as long."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@lru_cache(maxsize=4)
def _pool(workers: int, threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(workers, "citlr", initializer=_settle, initargs=(threads,))


def _settle(threads: int) -> None:
    # A thread takes over the process's number at its first operation, whatever it was told before: that is now.
    torch.get_num_threads()
    torch.set_num_threads(threads)


# What the processor's allocator, TorchScript on a GPU and ONNX Runtime say in errors of no kind of their own.
_WORDS = ("can't allocate memory", "out of memory", "failed to allocate memory")


def out_of_memory(trouble: BaseException) -> bool:
    """Say whether an error means that memory ran out.

    >>> out_of_memory(MemoryError()), out_of_memory(RuntimeError("CUDA out of memory.")), out_of_memory(ValueError())
    (True, True, False)
    """
    if isinstance(trouble, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(trouble, Exception) and any(words in str(trouble).lower() for words in _WORDS)


def smaller(batch: int, trouble: BaseException) -> int:
    """Give half of a batch that did not fit; any other trouble, and one of a single image, is raised again.

    >>> smaller(8, MemoryError())
    4
    """
    if batch < 2 or not out_of_memory(trouble):
        raise trouble
    free()
    return batch // 2


def free() -> None:
    """Give back what a GPU's allocator keeps for later."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def told(batch: int, first: int) -> str:
    """Say beside the progress that batches have become smaller; nothing where they have not.

    >>> told(4, 8), told(8, 8)
    ('memory ran out: 4 images at a time', '')
    """
    return "" if batch == first else f"memory ran out: {batch} image{'s' if batch > 1 else ''} at a time"
