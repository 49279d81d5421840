"""Checks as people read them outside the page: Markdown for a card or a pipeline, JUnit."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Sequence

from citlr.audit.privacy import without_paths
from citlr.checks import Check, Checks, failed
from citlr.text import markdown, visible

_OUTCOMES = {True: "passed", False: "**failed**", None: "**waived**"}


def listed(checks: Iterable[Check], *, kind: str) -> list[str]:
    """Write checks as a list in Markdown, without the paths of this machine."""
    return [
        f"- {kind} {markdown(check.name)}: {_OUTCOMES[check.passed]}. {markdown(without_paths(check.text))}"
        for check in checks
    ]


def grid(checks: Iterable[Checks], head: Sequence[str], about: Callable[[Checks], tuple[str, ...]]) -> list[str]:
    """Write checks as a table in Markdown, failed ones first; `about` says what each is about, below `head`."""
    rows = [
        f"| {'✅' if check.passed else '❌'} | {' | '.join(markdown(cell) for cell in (*about(check), check.text))} |"
        for check in sorted(checks, key=lambda check: bool(check.passed))
    ]
    return [f"| | {' | '.join(head)} | finding |", "|" + "---|" * (len(head) + 2), *rows]


def junit(checks: Sequence[Checks], about: Callable[[Checks], tuple[str, ...]]) -> bytes:
    """Write checks as JUnit XML, one test case each; the first of what it is `about` is its class."""
    suite = ET.Element("testsuite", name="citlr", tests=str(len(checks)), failures=str(len(failed(checks))))
    for check in checks:
        group, *name = about(check)
        case = ET.SubElement(suite, "testcase", classname=visible(group), name=visible(": ".join(name)))
        if check.passed is False:
            ET.SubElement(case, "failure", message=visible(check.text)).text = visible(check.text)
    return bytes(ET.tostring(suite, encoding="utf-8", xml_declaration=True))
