"""Images are read whole or not at all, whatever other libraries have told Pillow."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import ImageFile

_lock, _inside = threading.Lock(), list[bool]()


@contextmanager
def whole_only() -> Iterator[None]:
    """Have Pillow refuse truncated images while the block runs, in all threads.

    Who loads WeasyPrint has it fill them up with grey, in the whole process and without a word: a report as PDF is
    enough for that.
    """
    with _lock:
        _inside.append(ImageFile.LOAD_TRUNCATED_IMAGES)
        ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        yield
    finally:
        with _lock:
            # The last one out leaves what the first one found.
            if len(_inside) == 1:
                ImageFile.LOAD_TRUNCATED_IMAGES = _inside[0]
                _inside.clear()
            else:
                _inside.pop()
