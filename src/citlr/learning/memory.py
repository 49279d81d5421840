"""Memory that runs out: what is computed in batches goes on with smaller ones."""

from __future__ import annotations

import torch

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
