"""Verbs that look before anything long starts: the machine, and what an audit will take on it."""

from __future__ import annotations

from citlr.cli.options import Json


def doctor(as_json: Json = False) -> None:
    """Say what is installed and what this machine has: for a report of a fault; no path and no data of a patient."""
    import json

    from citlr.run.machine import examine

    found = examine()
    print(json.dumps(found.to_dict(), allow_nan=False) if as_json else found)


VERBS = (doctor,)
