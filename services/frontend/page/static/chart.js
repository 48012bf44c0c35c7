// A number over the last two minutes, as a line above its area.

import {made, setText} from "/page/dom.js";

const SVG = "http://www.w3.org/2000/svg";
export const WINDOW_MS = 120_000;
const GAP_MS = 3_500; // a longer silence is drawn as one
const RATE_MS = 4_500; // news of what was done comes about each second: over less, a rate would flicker
const WIDTH = 240, HEIGHT = 44;

/** Samples of the last two minutes, as [ms, value]. */
export class Series {
  constructor() {
    this.samples = [];
  }

  push(at, value) {
    this.samples.push([at, value]);
    while (this.samples[0][0] < at - WINDOW_MS) this.samples.shift();
  }
}

/** How fast a count grows, in 1/s. A count that falls has begun anew. */
export class Rate {
  constructor() {
    this.counts = [];
  }

  push(at, value) {
    if (this.counts.length && value < this.counts.at(-1)[1]) this.counts = [];
    this.counts.push([at, value]);
    while (this.counts.length > 2 && this.counts[1][0] <= at - RATE_MS) this.counts.shift();
    const [since, before] = this.counts[0];
    return at > since ? (1000 * (value - before)) / (at - since) : 0;
  }
}

/** Its element is `root`; `format` writes a value, null is a value that is not known. */
export class Chart {
  constructor(name, format, least = 1) {
    this.name = name;
    this.format = format;
    this.least = least; // what the height stands for at least
    this.series = new Series();
    this.root = made("chart-template");
    this.root.querySelector(".name").textContent = name;
    this.root.append(this.#canvas());
  }

  #canvas() {
    this.svg = element("svg", {viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img"});
    this.area = element("path", {class: "area"});
    this.line = element("path", {class: "line", "vector-effect": "non-scaling-stroke"});
    this.svg.append(this.area, this.line);
    return this.svg;
  }

  push(at, value) {
    this.series.push(at, value);
    const known = this.series.samples.filter((sample) => sample[1] !== null);
    const peak = Math.max(0, ...known.map((sample) => sample[1]));
    const most = Math.max(this.least, peak);
    const runs = split(known).map((run) => run.map(([time, height]) => [
      WIDTH * (1 - (at - time) / WINDOW_MS),
      HEIGHT - 2 - (HEIGHT - 5) * (height / most),
    ]));
    this.line.setAttribute("d", runs.map(path).join(""));
    this.area.setAttribute("d", runs.map((run) => `${path(run)}V${HEIGHT}H${run[0][0].toFixed(1)}Z`).join(""));
    const now = value === null ? "unknown" : this.format(value);
    setText(this.root.querySelector(".value"), value === null ? "–" : now);
    setText(this.root.querySelector(".most"), peak > 0 ? `peak ${this.format(peak)}` : "");
    const words = `${this.name} over the last two minutes: now ${now}, most ${this.format(peak)}`;
    this.svg.setAttribute("aria-label", words);
  }
}

function split(samples) {
  const runs = [];
  for (const sample of samples) {
    const before = runs.at(-1)?.at(-1);
    if (before && sample[0] - before[0] <= GAP_MS) runs.at(-1).push(sample);
    else runs.push([sample]);
  }
  return runs;
}

function path(points) {
  return points.map(([x, y], index) => `${index ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
}

function element(name, attributes) {
  const created = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) created.setAttribute(key, value);
  return created;
}
