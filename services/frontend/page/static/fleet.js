// The fleet as one snapshot each second shows it: tiles, models, workers.

import {Chart, Rate} from "/page/chart.js";
import {byId, bytes, count, made, rate, seconds, setBar, setText} from "/page/dom.js";

const GONE_MS = 20_000; // how long a worker that has vanished is still shown
const NEW_MS = 3_000;
const NAMED = 6; // models of a worker that are named

const TILES = [
  {name: "models", value: (fleet) => fleet.num_models, note: (fleet) => `${served(fleet)} with workers`},
  {name: "workers ready", value: (fleet) => fleet.ready_workers, note: (fleet) => `of ${count(fleet.num_workers)}`},
  {name: "waiting", value: (fleet) => sum(fleet.models, "waiting"), drawn: true},
  {name: "running", value: (fleet) => sum(fleet.models, "running"), drawn: true},
  {name: "streams", value: (fleet) => fleet.frontend.streams, drawn: true, note: () => "this frontend"},
  {name: "results/s", counted: (fleet) => fleet.frontend.results, drawn: true, note: () => "this frontend"},
];

export class Tiles {
  constructor() {
    this.tiles = TILES.map((tile) => ({...tile, root: made("tile-template"), rate: new Rate()}));
    for (const tile of this.tiles) {
      tile.root.querySelector(".name").textContent = tile.name;
      tile.root.dataset.tile = tile.name;
      if (tile.drawn) {
        tile.chart = new Chart(tile.name, tile.counted ? rate : count);
        tile.root.append(tile.chart.svg);
      }
      byId("tiles").append(tile.root);
    }
  }

  show(fleet) {
    for (const tile of this.tiles) {
      const value = tile.counted ? tile.rate.push(fleet.at_ms, tile.counted(fleet)) : tile.value(fleet);
      tile.chart?.push(fleet.at_ms, value);
      setText(tile.root.querySelector(".value"), tile.counted ? rate(value) : count(value));
      setText(tile.root.querySelector(".note"), tile.note?.(fleet) ?? "");
    }
  }
}

class Model {
  constructor(told) {
    this.root = made("model-template");
    this.rate = new Rate();
    this.charts = {
      waiting: new Chart("waiting", count),
      running: new Chart("running", count),
      wait: new Chart("estimated wait", seconds, 0.1),
      rate: new Chart(told.tasks.includes("generate") ? "tokens/s" : "rows/s", rate),
    };
    this.root.dataset.model = told.name;
    this.root.querySelector(".charts").append(...Object.values(this.charts).map((chart) => chart.root));
  }

  show(told, at) {
    setText(this.root.querySelector("h3"), `${told.name} / ${told.version}`);
    setText(this.root.querySelector(".task"), told.task);
    const ready = this.root.querySelector(".ready");
    setText(ready, told.ready_workers === 1 ? "1 worker" : `${count(told.ready_workers)} workers`);
    ready.dataset.state = told.ready_workers ? "ready" : "gone";
    setText(this.root.querySelector(".description"), told.description);
    this.charts.waiting.push(at, told.waiting);
    this.charts.running.push(at, told.running);
    this.charts.wait.push(at, told.wait_s);
    this.charts.rate.push(at, this.rate.push(at, told.work));
  }
}

export class Models {
  constructor() {
    this.shown = new Map();
  }

  show(fleet) {
    const keys = new Set();
    for (const told of fleet.models) {
      const key = `${told.name}/${told.version}`;
      keys.add(key);
      if (!this.shown.has(key)) this.shown.set(key, new Model(told));
      this.shown.get(key).show(told, fleet.at_ms);
    }
    for (const [key, model] of this.shown) {
      if (keys.has(key)) continue;
      model.root.remove();
      this.shown.delete(key);
    }
    inOrder(byId("models"), fleet.models.map((told) => this.shown.get(`${told.name}/${told.version}`).root));
    byId("no-models").hidden = fleet.models.length > 0;
    showMore(byId("more-models"), fleet.num_models - fleet.models.length, "models");
  }
}

class Worker {
  constructor(told, at, isNew) {
    this.root = made("worker-template");
    this.root.dataset.worker = told.id;
    this.root.classList.toggle("new", isNew);
    this.since = at;
    setText(this.root.querySelector("th"), told.id);
  }

  show(told, at) {
    this.seen = at;
    this.state(told.state, told.state);
    if (at - this.since > NEW_MS) this.root.classList.remove("new");
    const provider = told.provider.replace("ExecutionProvider", "");
    const device = provider && provider !== told.device ? `${told.device} (${provider})` : told.device;
    setText(this.root.querySelector(".device"), device);
    setText(this.root.querySelector(".serves"), names(told.models));
    const slots = told.running + told.free;
    figure(this.root.querySelector(".jobs"), told.running, slots, `${count(told.running)} of ${count(slots)}`);
    const memory = this.root.querySelector(".memory");
    const total = told.memory_total ? ` of ${bytes(told.memory_total)}` : "";
    figure(memory, told.memory_used, told.memory_total, told.memory_used ? bytes(told.memory_used) + total : "–");
  }

  vanish(at) {
    this.state("gone", `gone ${Math.round(Math.max(at - this.seen, 1000) / 1000)} s ago`);
    this.root.classList.add("gone");
  }

  state(state, words) {
    const chip = this.root.querySelector(".state");
    this.root.dataset.state = chip.dataset.state = state;
    this.root.classList.toggle("gone", state === "gone");
    setText(chip, words);
  }
}

export class Workers {
  constructor() {
    this.shown = new Map();
    this.begun = false;
  }

  show(fleet) {
    const at = fleet.at_ms, told = new Set();
    for (const worker of fleet.workers) {
      told.add(worker.id);
      if (!this.shown.has(worker.id)) this.shown.set(worker.id, new Worker(worker, at, this.begun));
      this.shown.get(worker.id).show(worker, at);
    }
    for (const [id, worker] of this.shown) {
      if (told.has(id)) continue;
      if (at - worker.seen > GONE_MS) {
        worker.root.remove();
        this.shown.delete(id);
      } else worker.vanish(at);
    }
    const ids = [...this.shown.keys()].sort();
    inOrder(byId("workers").tBodies[0], ids.map((id) => this.shown.get(id).root));
    byId("no-workers").hidden = this.shown.size > 0;
    showMore(byId("more-workers"), fleet.num_workers - fleet.workers.length, "workers");
    this.begun = true;
  }
}

function figure(cell, part, whole, words) {
  setBar(cell, part, whole);
  cell.querySelector(".bar").hidden = !whole;
  setText(cell.querySelector(".figure"), words);
}

function names(models) {
  const rest = models.length - NAMED;
  const shown = models.slice(0, NAMED).join(", ");
  return rest > 0 ? `${shown} and ${count(rest)} more` : shown || "none yet";
}

/** Moves only what is not in its place: a focus or a selection elsewhere stays. */
function inOrder(parent, roots) {
  roots.forEach((root, index) => {
    if (parent.children[index] !== root) parent.insertBefore(root, parent.children[index] ?? null);
  });
}

function showMore(element, number, what) {
  element.hidden = number <= 0;
  setText(element, number > 0 ? `and ${count(number)} ${what} more` : "");
}

function sum(items, field) {
  return items.reduce((total, item) => total + item[field], 0);
}

function served(fleet) {
  return count(fleet.models.filter((model) => model.ready_workers).length);
}
