"use strict";
// rows: one entry a mask, worst first; pictures come in scripts of their own, CHUNK rows each, which are read when they are shown
const DATA = JSON.parse(document.getElementById("data").textContent);
const ROWS = DATA.rows, CHUNK = DATA.chunk, PAGE = 20;
const KEY = "audit-" + DATA.id;
const $ = (id) => document.getElementById(id);
let ticks = {}, kinds = new Set(), view = [], made = 0, here = -1, kept = true;

try { ticks = JSON.parse(localStorage.getItem(KEY)) || {}; } catch (error) { kept = false; }

function element(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

const keyOf = (row) => row.image + "\n" + row.mask;  // two annotators may share a mask's name, or a picture

// --- pictures -----------------------------------------------------------------------------------------------------

const chunks = new Map();  // the chunks read last

function pictureOf(index) {
  const number = Math.floor(index / CHUNK);
  if (!chunks.has(number)) {
    const script = $("pictures" + number);
    if (!script || (document.readyState === "loading" && number > 0 && !$("pictures" + (number + 1)))) return null;  // not loaded yet
    chunks.set(number, JSON.parse(script.textContent));
    if (chunks.size > 8) chunks.delete(chunks.keys().next().value);
  }
  return chunks.get(number)[index % CHUNK];
}

function drawing(index) {
  const [width, height, image, annotation, proposal, doubt] = pictureOf(index);
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", ROWS[index].image + ": " + ROWS[index].verdict);
  const add = (tag, attributes) => {
    const part = document.createElementNS(space, tag);
    for (const [name, value] of Object.entries(attributes)) part.setAttribute(name, value);
    svg.append(part);
  };
  add("image", { href: image, width, height });
  add("path", { class: "doubt", d: doubt });
  add("path", { class: "annotation", d: annotation });
  add("path", { class: "proposal", d: proposal });
  return svg;
}

function fill(frame, index) {
  if (frame.firstChild) return;
  if (pictureOf(index)) frame.append(drawing(index));
  else document.addEventListener("DOMContentLoaded", () => fill(frame, index), { once: true });
}

// pictures far from the window are taken out again, so that memory stays the same however far one scrolls
const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    const frame = entry.target;
    if (entry.isIntersecting) { fill(frame, Number(frame.dataset.index)); frame.style.height = ""; }
    else if (frame.firstChild) { frame.style.height = frame.offsetHeight + "px"; frame.replaceChildren(); }
  }
}, { rootMargin: "1500px" });

// more rows are made when the end of the list comes near
const end = document.createElement("div");
$("list").after(end);
const sentinel = new IntersectionObserver((entries) => {
  if (entries.some((each) => each.isIntersecting) && made < view.length) more();
}, { rootMargin: "2000px" });

// --- rows ---------------------------------------------------------------------------------------------------------

function rowOf(index) {
  const row = ROWS[index];
  const frame = element("button", { class: "picture", "data-index": index, title: "enlarge", "aria-label": "Enlarge " + row.image });
  frame.style.aspectRatio = row.shape[0] + " / " + row.shape[1];
  frame.style.maxHeight = "360px";
  frame.addEventListener("click", () => { go(view.indexOf(index)); enlarge(index); });
  const bar = element("b", { class: row.kind === "fine" ? "ok" : "bad", style: `width:${Math.round(100 * row.score)}%` });
  const parts = element("ul", { class: "parts" }, ...row.parts.map((text) => element("li", {}, text)));
  const fix = element("button", { class: "f" }, "Fix it (F)"), fine = element("button", { class: "o" }, "It is fine (O)");
  fix.addEventListener("click", () => { go(view.indexOf(index)); tick(index, "fix"); });
  fine.addEventListener("click", () => { go(view.indexOf(index)); tick(index, "fine"); });
  const text = element("div", {}, element("p", { class: "verdict" }, row.verdict), element("p", { class: "file" },
    row.image + (row.annotator ? " · " + row.annotator : "")),
    element("div", { class: "meter", title: "score: 0 = doubtful, 1 = agrees with the judge" }, "score", element("i", {}, bar),
      row.score.toFixed(2)), parts, element("div", { class: "acts" }, fix, fine));
  const made = element("article", { class: "row", id: "row" + index }, frame, text);
  watcher.observe(frame);
  show(made, index);
  return made;
}

function show(article, index) {
  const state = ticks[keyOf(ROWS[index])] || "";
  article.classList.toggle("fix", state === "fix");
  article.classList.toggle("fine", state === "fine");
  article.querySelector(".f").setAttribute("aria-pressed", state === "fix");
  article.querySelector(".o").setAttribute("aria-pressed", state === "fine");
}

function tick(index, state) {
  const name = keyOf(ROWS[index]);
  if (ticks[name] === state) delete ticks[name]; else ticks[name] = state;
  try { localStorage.setItem(KEY, JSON.stringify(ticks)); } catch (error) { kept = false; }
  const article = $("row" + index);
  if (article) show(article, index);
  count();
}

// --- search, filters, order ---------------------------------------------------------------------------------------

const ORDERS = {
  worst: (a, b) => a - b,
  best: (a, b) => b - a,
  offset: (a, b) => Math.abs(ROWS[b].offset || 0) - Math.abs(ROWS[a].offset || 0) || a - b,
  doubt: (a, b) => ROWS[b].doubt - ROWS[a].doubt || a - b,
  name: (a, b) => (ROWS[a].image < ROWS[b].image ? -1 : ROWS[a].image > ROWS[b].image ? 1 : a - b),
};

function fits(row) {
  const state = ticks[keyOf(row)] || "open", tickOf = $("tick").value;
  return (!kinds.size || kinds.has(row.kind)) && (!$("class").value || row.class === $("class").value)
    && (!$("annotator").value || row.annotator === $("annotator").value) && (!tickOf || state === tickOf)
    && row.score <= Number($("most").value) + 1e-9 && row.image.toLowerCase().includes($("search").value.trim().toLowerCase());
}

function refresh() {
  view = ROWS.map((row, index) => index).filter((index) => fits(ROWS[index])).sort(ORDERS[$("sort").value]);
  watcher.disconnect();
  $("list").replaceChildren();
  made = 0;
  here = -1;
  more();
  if (!view.length) $("list").append(element("p", { class: "none" }, "No mask fits these filters."));
  $("shown").textContent = Number($("most").value).toFixed(2);
  count();
}

function more() {
  for (const last = Math.min(made + PAGE, view.length); made < last; made++) $("list").append(rowOf(view[made]));
  sentinel.unobserve(end);  // so that it reports again where its place has not changed
  sentinel.observe(end);
}

function count() {
  const states = Object.values(ticks);
  const number = (state) => states.filter((each) => each === state).length;
  $("count").textContent = `${view.length} of ${ROWS.length} shown · ${number("fix")} to fix · ${number("fine")} fine`
    + (kept ? "" : " · ticks are lost on reload: this browser keeps nothing for files");
}

function options(id, values) {
  for (const value of values) $(id).append(element("option", { value }, value));
  $(id).hidden = values.length < 2;
}

function buttons() {
  for (const [kind, words] of DATA.kinds) {
    const number = ROWS.filter((row) => row.kind === kind).length;
    if (!number) continue;
    const chip = element("button", { "aria-pressed": "false", "data-kind": kind }, `${words} ${number}`);
    chip.addEventListener("click", () => {
      if (!kinds.delete(kind)) kinds.add(kind);
      chip.setAttribute("aria-pressed", kinds.has(kind));
      refresh();
    });
    $("kinds").append(chip);
  }
}

// --- moving, enlarging, keyboard ----------------------------------------------------------------------------------

function go(position) {
  if (position < 0 || position >= view.length) return;
  while (made <= position) more();
  if (here >= 0 && $("row" + view[here])) $("row" + view[here]).classList.remove("here");
  here = position;
  const article = $("row" + view[here]);
  article.classList.add("here");
  article.scrollIntoView({ block: "nearest" });
  if ($("large").open) enlarge(view[here]);
}

function enlarge(index) {
  if (!pictureOf(index)) return;
  $("big").replaceChildren(drawing(index));
  const row = ROWS[index], state = ticks[keyOf(row)];
  $("caption").textContent = row.image + ": " + row.verdict + (state ? " · ticked: " + state : "");
  if (!$("large").open) $("large").showModal();
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (["INPUT", "SELECT"].includes(event.target.tagName) && event.target.type !== "range") {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const key = event.key.toLowerCase();
  if (key === "j" || key === "k") go(here + (key === "j" ? 1 : here < 0 ? 1 : -1));
  else if ((key === "f" || key === "o") && view.length) {
    if (here < 0) go(0);
    tick(view[here], key === "f" ? "fix" : "fine");
    if ($("large").open) enlarge(view[here]);
  } else if ("123".includes(key)) document.body.classList.toggle("no" + key);
  else if (key === "/") $("search").focus();
  else if (key === "e" && here >= 0) enlarge(view[here]);
  else return;
  event.preventDefault();
});

// --- download -----------------------------------------------------------------------------------------------------

function field(value) {
  let text = value === null || value === undefined ? "" : String(value);
  // a spreadsheet would run such a text as a formula; an apostrophe shows it as it is (ranking.csv holds the exact names)
  if (typeof value === "string" && /^[=+\-@\t\r]/.test(text)) text = "'" + text;
  return /[",\r\n]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text;
}

function table() {
  const names = ["image", "mask", "score", "kind", "offset", "class", "doubt", "annotator"];
  const lines = ROWS.map((row) => [...names.map((name) => field(row[name])), ticks[keyOf(row)] || ""].join(","));
  return [[...names, "tick"].join(","), ...lines].join("\n") + "\n";
}

$("download").addEventListener("click", () => {
  const link = element("a", { href: URL.createObjectURL(new Blob([table()], { type: "text/csv" })), download: "ticks.csv" });
  link.click();
  URL.revokeObjectURL(link.href);
});

const distinct = (name) => [...new Set(ROWS.map((row) => row[name]).filter(Boolean))].sort();
options("class", distinct("class"));
options("annotator", distinct("annotator"));
buttons();
for (const id of ["search", "class", "annotator", "tick", "sort", "most"]) $(id).addEventListener("input", refresh);
refresh();
performance.mark("first-row");
