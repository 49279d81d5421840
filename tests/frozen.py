"""Last of what the server of `as_user` imports: what it holds is never garbage, and no forked process looks through it.

A collection in a process of its own takes half a second of that, and copies every page that it counts references in.
The templates of pages are compiled here, too, which took a process .3 s.
"""

from __future__ import annotations

import gc
import os

from citlr.report.page import environment

for template in environment().list_templates():
    environment().get_template(template)
# The first entry led here, and is no part of what a command is given.
os.environ["PYTHONPATH"] = os.environ["PYTHONPATH"].partition(os.pathsep)[2]
if not os.environ["PYTHONPATH"]:
    del os.environ["PYTHONPATH"]
gc.collect()
gc.freeze()
