"use strict";
// The page is whole without this: it adds values under the pointer, and paging, sorting and filters of the responses.

// A label that follows the pointer over a chart.
const label = document.createElement("div");
label.className = "hover";
label.setAttribute("role", "status");
document.body.append(label);

for (const chart of document.querySelectorAll("svg[data-plot]")) {
  const [left, right, top, bottom, lowX, highX, lowY, highY] = chart.dataset.plot.split(" ").map(Number);
  const scale = (pixel, from, to, low, high) => low + ((pixel - from) / (to - from)) * (high - low);
  const lines = [...chart.querySelectorAll("path.stroke, path.path")].map((path) => ({
    path,
    points: path.getAttribute("d").slice(1).split("L").map((point) => point.split(",").map(Number)),
  }));
  if (!lines.length) continue;
  const guide = document.createElementNS("http://www.w3.org/2000/svg", "path");
  guide.setAttribute("class", "guide");
  chart.append(guide);
  const digits = (low, high) => Math.max(0, 3 - Math.floor(Math.log10(Math.abs(high - low) || 1)) - 1);
  chart.addEventListener("pointermove", (event) => {
    const box = chart.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * chart.viewBox.baseVal.width;
    const near = lines.map(({ path, points }) => ({
      name: path.dataset.name || "",
      point: points.reduce((best, point) => (Math.abs(point[0] - x) < Math.abs(best[0] - x) ? point : best)),
    }));
    const at = near[0].point[0];
    guide.setAttribute("d", `M${at},${top}L${at},${bottom}`);
    const where = scale(at, left, right, lowX, highX).toFixed(chart.dataset.x === "step" ? 0 : digits(lowX, highX));
    const values = near.map(({ name, point }) =>
      `${name ? name + " " : ""}${scale(point[1], bottom, top, lowY, highY).toFixed(digits(lowY, highY))}`);
    label.textContent = `${chart.dataset.x} ${where}: ${values.join(", ")}`;
    label.style.display = "block";
    label.style.left = `${Math.min(event.clientX + 14, innerWidth - label.offsetWidth - 8)}px`;
    label.style.top = `${event.clientY + 16}px`;
  });
  chart.addEventListener("pointerleave", () => {
    label.style.display = "none";
    guide.removeAttribute("d");
  });
}

// Responses: all in one list, a page of them shown at a time.
const list = document.querySelector("#talks");
if (list) {
  const all = [...document.querySelectorAll("article.talk")];
  document.querySelector("#more-talks")?.remove();
  const tools = document.querySelector("#tools");
  const [words, only, order, count, status] = ["words", "only", "order", "count", "status"].map((name) =>
    tools.querySelector(`[data-tool=${name}]`));
  let page = 0;
  const wanted = (talk) =>
    (!only.value || talk.dataset.marks.split(" ").includes(only.value)) &&
    talk.textContent.toLowerCase().includes(words.value.trim().toLowerCase());
  const show = () => {
    const key = order.value;
    const sorted = key ? [...all].sort((a, b) => Number(b.dataset[key]) - Number(a.dataset[key])) : all;
    const found = sorted.filter(wanted);
    const size = Number(count.value);
    page = Math.max(0, Math.min(page, Math.ceil(found.length / size) - 1));
    const shown = found.slice(page * size, page * size + size);
    list.replaceChildren(...shown);
    const last = page * size + shown.length;
    status.textContent = found.length
      ? `${page * size + 1} to ${last} of ${found.length}${found.length < all.length ? ` (${all.length} in all)` : ""}`
      : "none of them";
    tools.querySelector("[data-tool=back]").disabled = page === 0;
    tools.querySelector("[data-tool=on]").disabled = last >= found.length;
  };
  for (const tool of [words, only, order, count]) {
    tool.addEventListener("input", () => {
      page = 0;
      show();
    });
  }
  for (const [name, step] of [["back", -1], ["on", 1]]) {
    tools.querySelector(`[data-tool=${name}]`).addEventListener("click", () => {
      page += step;
      show();
    });
  }
  // On paper there are no pages: everything that was found is printed.
  addEventListener("beforeprint", () => list.replaceChildren(...all.filter(wanted)));
  addEventListener("afterprint", show);
  tools.hidden = false;
  show();
}
