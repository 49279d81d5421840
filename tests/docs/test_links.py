"""The checker of a built site: what it finds, on pages that are broken on purpose."""

from __future__ import annotations

from pathlib import Path

from docsite.links import broken


def site(folder: Path, **pages: str) -> Path:
    for name, text in pages.items():
        (folder / f"{name}.html").write_text(text)
    return folder


def test_a_whole_site_has_nothing_broken(tmp_path: Path) -> None:
    pages = {
        "a": '<a href="b.html#there">b</a><a href="https://x.org">x</a>',
        "b": '<h2 id="there">h</h2><a href="#there">',
    }
    assert broken(site(tmp_path, **pages)) == []


def test_lost_files_and_anchors_and_what_is_fetched_are_named(tmp_path: Path) -> None:
    (tmp_path / "here.png").touch()
    text = (
        '<a href="c.html"></a><a href="a.html#no"></a><img src="here.png"><img src="gone.png">'
        '<script src="https://x.org/y.js"></script><link rel="stylesheet" href="//x.org/y.css">'
        '<link rel="canonical" href="https://x.org/"><a href="mailto:x@y.z"></a>'
    )
    assert broken(site(tmp_path, a=text)) == [
        "a.html: c.html is not there",
        "a.html: a.html#no has no such anchor",
        "a.html: gone.png is not there",
        "a.html: fetches https://x.org/y.js",
        "a.html: fetches //x.org/y.css",
    ]
