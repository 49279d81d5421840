"use strict";
// Tables sort by the key of their cells; what is not there stays last. Without this script the page lacks the sorting and
// the sliders, nothing that it says.
document.querySelectorAll("table.sortable").forEach((table) => {
  const body = table.tBodies[0];
  table.querySelectorAll("thead th").forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    while (head.firstChild && head.firstChild.nodeName !== "SMALL") button.append(head.firstChild);
    head.prepend(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      table.querySelectorAll("thead th").forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const key = (row) => row.cells[column].dataset.key || "";
      const numeric = head.classList.contains("num");
      const rows = Array.from(body.rows).sort((left, right) => {
        const a = key(left), b = key(right);
        if (a === "" || b === "") return (a === "") - (b === "");
        const order = numeric ? Number(a) - Number(b) : a.localeCompare(b, undefined, { numeric: true });
        return up ? order : -order;
      });
      body.append(...rows);
    });
  });
});
// Under every strip, two of its pictures on top of each other: the left one is cut off where the slider stands.
const made = (name, properties, ...inside) => {
  const one = Object.assign(document.createElement(name), properties);
  one.append(...inside);
  return one;
};
document.querySelectorAll("figure.strip").forEach((strip, number) => {
  const tiles = Array.from(strip.querySelectorAll(".tile img"));
  const place = (role) => Math.max(0, tiles.findIndex((tile) => tile.dataset.role === role));
  const under = made("img", {}), over = made("img", {}), line = made("span", { className: "line" });
  const stage = made("div", { className: "stage" }, under, over, line);
  const slider = made("input", { type: "range", min: 0, max: 100, value: 50, ariaLabel: "Where the left picture ends" });
  const choice = (side, at) => {
    const select = made("select", {}, ...tiles.map((tile) => made("option", { textContent: tile.dataset.name })));
    select.selectedIndex = at;
    return [select, made("label", {}, made("span", { textContent: side }), select)];
  };
  const [left, leftLabel] = choice("Left of the line", place("null"));
  const [right, rightLabel] = choice("Right of the line", place("counterfactual"));
  const wipe = () => {
    over.style.clipPath = `inset(0 ${100 - slider.value}% 0 0)`;
    line.style.left = `${slider.value}%`;
    slider.setAttribute("aria-valuetext", `${slider.value} %: ${left.value}; the rest: ${right.value}`);
  };
  const show = () => {
    for (const [image, select] of [[over, left], [under, right]]) {
      const tile = tiles[select.selectedIndex];
      if (image.src !== tile.src) image.src = tile.src;
      image.alt = tile.alt;
    }
    // Whole multiples of the model's pixels, so that none of them is invented.
    const side = Number(tiles[0].getAttribute("width"));
    stage.style.width = `${side * Math.max(1, Math.floor(448 / side))}px`;
    wipe();
  };
  const drag = (event) => {
    const box = stage.getBoundingClientRect();
    slider.value = Math.round((100 * (event.clientX - box.left)) / box.width);
    wipe();
  };
  stage.addEventListener("pointerdown", (event) => {
    event.preventDefault();
    stage.setPointerCapture(event.pointerId);
    slider.focus({ preventScroll: true });
    drag(event);
  });
  stage.addEventListener("pointermove", (event) => { if (stage.hasPointerCapture(event.pointerId)) drag(event); });
  slider.addEventListener("input", wipe);
  left.addEventListener("change", show);
  right.addEventListener("change", show);
  const summary = made("summary", { textContent: "Compare two of them" });
  const whole = made("details", { className: "compare", open: number === 0 }, summary, stage, slider,
    made("div", { className: "choices" }, leftLabel, rightLabel));
  strip.append(whole);
  show();
});
document.querySelectorAll(".compare-help").forEach((help) => { help.hidden = false; });
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((one) => { one.open = true; }));
