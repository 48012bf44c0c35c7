// Finds and fills elements. Whatever comes from the server is put in as text, never as markup.

export const byId = (id) => document.getElementById(id);

export function made(template) {
  return byId(template).content.firstElementChild.cloneNode(true);
}

/** Only where it differs, so that selections stay and nothing is laid out anew. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** A part of a whole, drawn as the width of the bar within `element`. */
export function setBar(element, part, whole) {
  const share = whole > 0 ? Math.min(Math.max(part / whole, 0), 1) : 0;
  element.querySelector("i").style.width = `${(100 * share).toFixed(1)}%`;
}

const WHOLE = new Intl.NumberFormat("en", {maximumFractionDigits: 0});
const SHORT = new Intl.NumberFormat("en", {notation: "compact", maximumFractionDigits: 1});

export function count(value) {
  return value < 10_000 ? WHOLE.format(value) : SHORT.format(value);
}

export function rate(value) {
  return value < 9.95 ? String(Math.round(10 * value) / 10) : count(value);
}

export function seconds(value) {
  if (value < 0.0005) return "0 s";
  if (value < 0.9995) return `${Math.round(1000 * value)} ms`;
  if (value < 99.5) return `${Math.round(10 * value) / 10} s`;
  return `${count(value / 60)} min`;
}

export function bytes(value) {
  const units = ["B", "KB", "MB", "GB", "TB"];
  let unit = 0;
  for (; value >= 999.5 && unit < units.length - 1; unit += 1) value /= 1024;
  return `${value < 9.95 ? Math.round(10 * value) / 10 : Math.round(value)} ${units[unit]}`;
}
