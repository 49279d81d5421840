"""The page of several models: the gravest first, each linked, names escaped."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from report_fake import make_result

from citlr.audit.results.result import Estimate
from citlr.report.publish import rank, render_fleet, write_fleet


def test_models_are_ranked_by_verdict_and_linked(tmp_path: Path) -> None:
    base = make_result()
    results = {
        "calm": replace(base, verdict="equivalent", model="calm"),
        "grave": replace(base, verdict="dependence", model="grave"),
        "<b>open": replace(base, verdict="inconclusive", model="<b>open"),
    }
    assert rank(results) == ["grave", "<b>open", "calm"]
    no_number = replace(base.tests[0], psi=Estimate(math.nan, math.nan, math.nan))
    by_size = {
        name: replace(base, tests=(replace(base.tests[0], psi=Estimate(psi, 0, 1)),))
        for name, psi in (("a", 0.1), ("c", 0.3), ("d", 0.2))
    }
    among = {"a": by_size["a"], "b": replace(base, tests=(no_number, base.tests[0])), **by_size}
    assert rank(among) == ["c", "d", "a", "b"]
    without = {"a": replace(base, tests=(no_number,)), "b": replace(base, tests=())}
    page = render_fleet(without, dict.fromkeys(without, "audit.html"))
    assert "n/a: it could not be computed." in page
    assert "n/a: no test was run." in page
    links = {name: f"models/{number}/audit.html" for number, name in enumerate(results)}
    page = write_fleet(tmp_path / "audit.html", results, links).read_text(encoding="utf-8")
    assert page == render_fleet(results, links)
    assert page.index("models/1/audit.html") < page.index("models/2/audit.html") < page.index("models/0/audit.html")
    assert "<b>open" not in page
    assert "http://" not in page
    assert "https://" not in page
