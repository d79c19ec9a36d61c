// Elements and numbers. Text only: nothing here, or anywhere on the page, reads a string as HTML.
import { chosen, t } from "/console/words.js";

const SVG = "http://www.w3.org/2000/svg";

export function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat()) if (child !== null && child !== undefined) made.append(child instanceof Node ? child : plain(child));
  return made;
}

// Bidi and control characters could make a cell read as something else.
export function plain(value) {
  const text = String(value);
  const short = text.length > 600 ? `${text.slice(0, 600)}…` : text;
  return short.replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069]/g, "\ufffd");
}

export function table(target, heads, rows, empty) {
  const head = el("tr", {}, heads.map(h => el("th", { scope: "col", class: h.n ? "n" : null }, h.label)));
  target.className = "stack";
  if (!rows.length) {
    target.replaceChildren(el("tbody", {}, el("tr", {}, el("td", { class: "dim" }, empty ?? t("nothing")))));
    return;
  }
  const body = el("tbody", {}, rows.map(cells => el("tr", {}, cells.map((cell, i) =>
    el(i === 0 ? "th" : "td", { scope: i === 0 ? "row" : null, "data-label": heads[i].label, class: [heads[i].n ? "n" : "", heads[i].class ?? ""].join(" ").trim() || null }, cell)))));
  target.replaceChildren(el("thead", {}, head), body);
}

export function state(word, text = null) {
  const kind = { ok: "ok", pass: "ok", breach: "bad", fail: "bad", degraded: "warn", unknown: "warn", inconclusive: "warn" }[word] ?? "dim";
  return el("span", { class: kind }, text ?? t(word));
}

export function number(value, unit) {
  if (value === null || value === undefined) return t("unknown");
  if (unit === "ratio") return `${(value * 100).toLocaleString(chosen(), { maximumFractionDigits: 2 })} %`;
  if (unit === "seconds") return `${(value * 1000).toLocaleString(chosen(), { maximumFractionDigits: 0 })} ms`;
  if (unit === "usd") return `${value.toLocaleString(chosen(), { maximumSignificantDigits: 4 })} USD`;
  return value.toLocaleString(chosen(), { maximumSignificantDigits: 4 });
}

export function duration(seconds) {
  for (const [size, unit] of [[86400, "d"], [3600, "h"], [60, "m"]]) if (seconds >= size) return `${(seconds / size).toFixed(seconds >= 10 * size ? 0 : 1)}${unit}`;
  return `${Math.round(seconds)}s`;
}

export function clock(wall) {
  if (!wall) return "";
  const at = new Date(wall * 1000), time = at.toLocaleTimeString(chosen(), { hourCycle: "h23" });
  if (at.toDateString() === new Date().toDateString()) return time;
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${time}`;
}

// Times are the browser's; the command line, /status and post-mortems speak UTC, so a heading says which.
export function zone() {
  const minutes = -new Date().getTimezoneOffset(), part = Math.abs(minutes) % 60;
  if (!minutes) return "UTC";
  return `UTC${minutes < 0 ? "-" : "+"}${Math.floor(Math.abs(minutes) / 60)}${part ? `:${two(part)}` : ""}`;
}

function two(number) { return String(number).padStart(2, "0"); }

export function spark(points, limit, isCanary, label) {
  if (points.length < 2) return el("span", { class: "dim" }, "–");
  const values = points.map(p => p[1]);
  const top = Math.max(...values, limit ?? 0) || 1;
  const low = Math.min(0, ...values);
  const from = points[0][0], span = points[points.length - 1][0] - from || 1;
  const y = value => (28 - 26 * (value - low) / (top - low || 1)).toFixed(1);
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", isCanary ? "spark canary" : "spark");
  svg.setAttribute("viewBox", "0 0 112 30");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", plain(label));
  const line = document.createElementNS(SVG, "polyline");
  line.setAttribute("points", points.map(p => `${(110 * (p[0] - from) / span + 1).toFixed(1)},${y(p[1])}`).join(" "));
  svg.append(line);
  if (limit !== null && limit !== undefined) {
    const rule = document.createElementNS(SVG, "line");
    for (const [name, value] of [["x1", 0], ["x2", 112], ["y1", y(limit)], ["y2", y(limit)]]) rule.setAttribute(name, value);
    svg.append(rule);
  }
  return svg;
}
