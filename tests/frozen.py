"""Last of what the server of `as_user` imports: what it holds is never garbage, and no forked process looks through it.

A collection in a process of its own takes half a second of that, and copies every page that it counts references in.
"""

from __future__ import annotations

import gc

gc.collect()
gc.freeze()
