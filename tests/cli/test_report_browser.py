"""The page in a real browser: nothing overflows a phone, no text of a chart is small, tables sort, it prints."""

from __future__ import annotations

import html as html_module
import json
import re
import shutil
import subprocess
import unicodedata

import pytest
from report_fake import RACES, make_gallery, make_responses, make_result

from citlr.report.page import render
from citlr.report.pdf import write_pdf

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no Chromium here (Debian: apt-get install chromium)")

# The page stands in a frame of the width of the device; the frame around it measures, and writes what it found.
PROBE = """
<!DOCTYPE html><meta charset="utf-8"><iframe width="%d" height="900" style="border:0" srcdoc="%s"></iframe>
<pre id="found"></pre>
<script>
addEventListener("load", () => {
  const page = document.querySelector("iframe").contentDocument, view = page.defaultView, found = {};
  page.querySelectorAll("details").forEach((one) => { one.open = true; });
  found.width = view.innerWidth;
  found.scroll = page.documentElement.scrollWidth;
  found.smallest = Math.min(...Array.from(page.querySelectorAll("svg text"), (text) => {
    const svg = text.ownerSVGElement, box = svg.viewBox.baseVal, shown = svg.getBoundingClientRect().width;
    return parseFloat(view.getComputedStyle(text).fontSize) * (box && box.width ? shown / box.width : 1);
  }));
  found.words = Math.min(...Array.from(page.querySelectorAll("main *"), (one) =>
    Array.from(one.childNodes).some((node) => node.nodeType === 3 && node.textContent.trim())
      ? parseFloat(view.getComputedStyle(one).fontSize) : 99));
  found.pictures = Array.from(page.images, (image) => image.complete && image.naturalWidth > 0);
  found.outside = Array.from(page.querySelectorAll("main p, main li, main h1, main h2, main figure, .scroll"))
    .filter((one) => one.getBoundingClientRect().right > view.innerWidth + 1).map((one) => one.outerHTML.slice(0, 90));
  // WCAG 2.2, success criterion 1.4.3, of every text against what it stands on, as the browser computed both.
  const channels = (text) => (text.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number);
  const light = (rgb) => {
    const [r, g, b] = rgb.slice(0, 3).map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (one) => {
    for (let at = one; at; at = at.parentElement) {
      const rgb = channels(view.getComputedStyle(at).backgroundColor);
      if (rgb.length < 4 || rgb[3] > 0) return rgb;
    }
    return [255, 255, 255];
  };
  const texts = Array.from(page.querySelectorAll("body *")).filter((one) =>
    !/^(SCRIPT|STYLE|TITLE)$/i.test(one.tagName) &&
    Array.from(one.childNodes).some((node) => node.nodeType === 3 && node.textContent.trim()));
  found.texts = texts.length;
  found.faint = [];
  for (const one of texts) {
    const style = view.getComputedStyle(one), drawn = one instanceof view.SVGElement;
    const [a, b] = [light(channels(drawn ? style.fill : style.color)), light(ground(one))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && parseInt(style.fontWeight) >= 700);
    if (ratio < (large ? 3 : 4.5)) found.faint.push([ratio, one.outerHTML.slice(0, 90)]);
  }
  const table = page.querySelector("table.sortable"), column = 3;
  const keys = () => Array.from(table.tBodies[0].rows, (row) => row.cells[column].dataset.key);
  const heads = table.tHead.rows[0].cells;
  found.before = keys();
  heads[column].querySelector("button").click();
  found.up = keys();
  found.sorted = heads[column].getAttribute("aria-sort");
  heads[column].querySelector("button").click();
  found.down = keys();
  // The slider under the first strip, as a finger, the arrow keys and the two choices move it.
  const compare = page.querySelector(".compare");
  if (compare) {
    const stage = compare.querySelector(".stage"), slider = compare.querySelector("input");
    const [under, over] = stage.querySelectorAll("img"), [left, right] = compare.querySelectorAll("select");
    const tiles = Array.from(page.querySelector("figure.strip").querySelectorAll(".tile img"));
    const box = stage.getBoundingClientRect();
    const state = () => [over.style.clipPath, slider.getAttribute("aria-valuetext")];
    const which = (image) => tiles.findIndex((tile) => tile.src === image.src);
    stage.setPointerCapture = () => {};
    stage.hasPointerCapture = () => true;
    const touch = (kind, share) => stage.dispatchEvent(new view.PointerEvent(kind,
      { clientX: box.left + share * box.width, pointerId: 1, pointerType: "touch", bubbles: true, cancelable: true }));
    found.compare = { count: page.querySelectorAll(".compare").length, start: state(), side: [box.width, under.alt] };
    found.compare.shows = [which(over), which(under)];
    touch("pointerdown", 0.25);
    found.compare.touched = state();
    touch("pointermove", 0.75);
    found.compare.dragged = state();
    found.compare.focused = page.activeElement === slider;
    slider.value = 10;
    slider.dispatchEvent(new view.Event("input"));
    found.compare.keyed = state();
    left.selectedIndex = 0;
    right.selectedIndex = tiles.length - 1;
    left.dispatchEvent(new view.Event("change"));
    found.compare.chosen = [which(over), which(under), tiles.length, slider.getAttribute("aria-valuetext")];
    found.compare.labelled = Array.from(compare.querySelectorAll("input, select"), (one) =>
      one.getAttribute("aria-label") || one.labels[0].textContent);
    found.compare.targets = Math.min(...Array.from(compare.querySelectorAll("input, select"), (one) =>
      one.getBoundingClientRect().height));
  }
  // Row headings, which stay in view: a common name on one line, one without end not over all that is beside it.
  const headings = Array.from(page.querySelectorAll("tbody th")), word = (one) => one.textContent.trim();
  const lines = (one) => {
    const range = page.createRange();
    range.selectNodeContents(one);
    return new Set(Array.from(range.getClientRects(), (box) => Math.round(box.top))).size;
  };
  found.whole = headings.filter((one) => /^\\w{9,}$/.test(word(one)));
  found.broken = found.whole.filter((one) => lines(one) > 1).map(word);
  found.whole = found.whole.length;
  headings[0].textContent = "x".repeat(120);
  found.longest = headings[0].getBoundingClientRect().width;
  document.getElementById("found").textContent = JSON.stringify(found);
});
</script>
"""


def chromium(*arguments: str) -> str:
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=4000", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.fixture(scope="module")
def page() -> str:
    result = make_result(levels=RACES, attribute="race", missing=True)
    return render(
        result,
        responses=make_responses(result, n_images=60, draws=1),
        gallery=make_gallery(3, size=32, levels=RACES, attribute="race"),
    )


@pytest.fixture(scope="module")
def measured(page, tmp_path_factory) -> dict[int, dict]:
    """What the probe finds at the width of a phone and of a desk; a browser is slow to start."""
    return {width: measure(page, tmp_path_factory.mktemp("probe"), width) for width in (360, 1440)}


def measure(page: str, folder, width: int, *options: str) -> dict:
    probe = folder / "probe.html"
    probe.write_text(PROBE % (width, html_module.escape(page, quote=True)), encoding="utf-8")
    dumped = chromium(*options, "--window-size=1600,1000", "--dump-dom", probe.as_uri())
    found = re.search(r'<pre id="found">(.*?)</pre>', dumped, re.DOTALL)
    assert found, dumped[-500:]
    return json.loads(html_module.unescape(found.group(1)))


@pytest.mark.parametrize("width", [360, 1440])
def test_the_page_fits_and_every_text_can_be_read(measured, width):
    found = measured[width]
    assert found["scroll"] <= found["width"] == width
    assert found["outside"] == []
    assert found["smallest"] >= 11.99  # 9 pt
    assert found["words"] >= 11.99
    assert found["pictures"]
    assert all(found["pictures"])


CONTENTS = """
<!DOCTYPE html><meta charset="utf-8"><iframe height="900" style="border:0" srcdoc="%s"></iframe>
<pre id="found"></pre>
<script>
addEventListener("load", () => {
  const frame = document.querySelector("iframe"), box = frame.contentDocument.querySelector(".contents");
  document.getElementById("found").textContent = JSON.stringify([360, 780, 1024, 1300, 1440].map((width) => {
    frame.style.width = width + "px";
    return [width, box.scrollWidth - box.clientWidth, box.querySelectorAll("a").length];
  }));
});
</script>
"""


def test_the_contents_are_seen_whole_but_on_a_phone_where_they_are_one_line(page, tmp_path):
    """What has to be scrolled sideways is easily missed, and many a mouse cannot."""
    (tmp_path / "probe.html").write_text(CONTENTS % html_module.escape(page, quote=True), encoding="utf-8")
    dumped = chromium("--window-size=1600,1000", "--dump-dom", (tmp_path / "probe.html").as_uri())
    found = re.search(r'<pre id="found">(.*?)</pre>', dumped, re.DOTALL)
    assert found, dumped[-500:]
    beyond = {width: outside for width, outside, links in json.loads(found.group(1)) if links > 5}
    assert beyond.pop(360) > 100
    assert beyond == {780: 0, 1024: 0, 1300: 0, 1440: 0}


@pytest.mark.parametrize("width", [360, 1440])
def test_row_headings_stay_whole_and_leave_room_beside_them(measured, width):
    assert measured[width]["whole"] > 10
    assert measured[width]["broken"] == []
    assert measured[width]["longest"] <= min(0.45 * width, 250)


@pytest.mark.parametrize("width", [360, 1440])
def test_every_text_has_the_contrast_of_wcag_aa(measured, width):
    assert measured[width]["texts"] > 300
    assert measured[width]["faint"] == []


def test_every_text_has_the_contrast_of_wcag_aa_in_the_dark(page, tmp_path):
    found = measure(page, tmp_path, 360, "--blink-settings=preferredColorScheme=0")
    assert found["texts"] > 300
    assert found["faint"] == []


def test_the_probe_sees_a_faint_text(page, tmp_path):
    faint = page.replace("<footer><p>", '<footer><p style="color: #9a9a9a">')
    assert len(measure(faint, tmp_path, 360)["faint"]) == 1


def test_chromium_writes_the_pdf_where_it_is_asked_for(tmp_path):
    pypdf = pytest.importorskip("pypdf")
    path = write_pdf(render(make_result(labels=("edema",))), tmp_path / "audit.pdf", engine="chromium")
    text = unicodedata.normalize("NFKC", "".join(one.extract_text() for one in pypdf.PdfReader(path).pages))
    assert "Evidence, not certification" in text
    assert "Screening" in text


@pytest.mark.parametrize("width", [360, 1440])
def test_two_pictures_are_compared_by_finger_and_by_keyboard(measured, width):
    found = measured[width]["compare"]
    assert found["count"] == 3
    assert found["start"][0] == "inset(0px 50% 0px 0px)"
    assert found["start"][1] == "50 %: do(asian), null intervention; the rest: do(black), counterfactual"
    assert found["shows"] == [1, 2]  # the null intervention, and the first counterfactual
    assert found["touched"][0] == "inset(0px 75% 0px 0px)"
    assert found["dragged"][0] == "inset(0px 25% 0px 0px)"
    assert found["focused"]  # the arrow keys go on where the finger was
    assert found["keyed"][0] == "inset(0px 90% 0px 0px)"
    assert found["chosen"][:2] == [0, found["chosen"][2] - 1]
    assert found["chosen"][3].startswith("10 %: original, as recorded; the rest: white − asian, signed difference")
    assert found["labelled"][0] == "Where the left picture ends"
    assert [one[:5] for one in found["labelled"][1:]] == ["Left ", "Right"]
    assert found["targets"] >= 44  # WCAG 2.5.5
    assert found["side"][0] % 32 in (0, 2) or width == 360  # whole multiples of the model's pixels, and the frame


def test_tables_sort_by_value_and_what_is_missing_stays_last(measured):
    found = measured[1440]
    numbers = [float(key) for key in found["before"] if key]
    assert found["before"].count("") == 1
    assert [float(key) for key in found["up"][:-1]] == sorted(numbers)
    assert [float(key) for key in found["down"][:-1]] == sorted(numbers, reverse=True)
    assert found["up"][-1] == found["down"][-1] == ""
    assert found["sorted"] == "ascending"
    assert found["before"] != found["up"]


def test_the_page_prints_with_everything_that_is_folded_on_screen(page, tmp_path):
    source, printed = tmp_path / "audit.html", tmp_path / "audit.pdf"
    source.write_text(page, encoding="utf-8")
    chromium("--no-pdf-header-footer", f"--print-to-pdf={printed}", source.as_uri())
    assert printed.read_bytes().startswith(b"%PDF")
    if not shutil.which("pdftotext"):
        pytest.skip("no pdftotext here (Debian: apt-get install poppler-utils): the text of the PDF is not read")
    text = subprocess.run(["pdftotext", "-layout", printed, "-"], capture_output=True, text=True, check=True).stdout
    assert "Evidence, not certification" in text
    assert "Screening" in text  # in a table that opens on demand
    assert "Made by citlr" in text
    assert "Compare two of them" not in text  # a slider is nothing on paper: the strips are there


def test_a_dark_scheme_darkens_the_page(page, tmp_path):
    from PIL import Image

    source, shot = tmp_path / "audit.html", tmp_path / "dark.png"
    source.write_text(page, encoding="utf-8")
    chromium(
        "--hide-scrollbars",
        "--blink-settings=preferredColorScheme=0",
        f"--screenshot={shot}",
        "--window-size=600,400",
        source.as_uri(),
    )
    assert Image.open(shot).convert("RGB").getpixel((3, 390)) == (0x12, 0x15, 0x18)
