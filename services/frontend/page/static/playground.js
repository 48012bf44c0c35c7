// The playground: which model, and the form of its task.

import {byId, count, rate, seconds, setText} from "/page/dom.js";
import {Files} from "/page/files.js";
import {cancel, generate, newJobId} from "/page/generating.js";

const GROUPS = {
  "text-generation": "Generates text",
  "image-classification": "Labels images",
  "audio-classification": "Labels sounds",
  "text-classification": "Labels texts",
  "speech-recognition": "Writes down speech",
};
const PATHS = {text: "/v1/completions", chat: "/v1/chat/completions"};

export class Playground {
  constructor() {
    this.select = byId("model");
    this.models = new Map();
    this.listed = "";
    this.generation = new Generation();
    this.files = new Files();
    this.select.addEventListener("change", () => this.choose());
  }

  show(fleet) {
    byId("openai-off").hidden = fleet.frontend.openai;
    this.generation.allow(fleet.frontend.openai);
    const models = fleet.models.filter((model) => model.task in GROUPS);
    const listed = JSON.stringify(models.map((model) => [model.name, model.version, model.task]));
    if (listed !== this.listed) this.list(models);
    this.listed = listed;
  }

  /** What was chosen stays, where it is there still. */
  list(models) {
    const chosen = this.select.value;
    this.models = new Map(models.map((model) => [`${model.name}/${model.version}`, model]));
    const groups = Object.entries(GROUPS).map(([task, words]) => {
      const group = document.createElement("optgroup");
      group.label = words;
      for (const [key, model] of this.models) {
        if (model.task === task) group.append(new Option(key, key, false, key === chosen));
      }
      return group;
    });
    this.select.replaceChildren(...groups.filter((group) => group.children.length));
    this.select.disabled = !models.length;
    byId("nothing-to-play").hidden = models.length > 0;
    this.choose();
  }

  choose() {
    const model = this.models.get(this.select.value);
    const generates = model?.task === "text-generation";
    byId("generate").hidden = !generates;
    byId("files").hidden = !model || generates;
    if (generates) this.generation.model = this.select.value;
    else if (model) this.files.turnTo(this.select.value, model.task);
  }
}

class Generation {
  constructor() {
    this.form = byId("generate");
    this.go = byId("go");
    this.stopping = byId("stop");
    this.written = byId("written").appendChild(document.createTextNode(""));
    this.running = null;
    this.allowed = true;
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (!this.running && this.allowed) this.run();
    });
    this.form.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.form.requestSubmit();
      if (event.key === "Escape") this.stop();
    });
    this.stopping.addEventListener("click", () => this.stop());
  }

  allow(allowed) {
    this.allowed = allowed;
    this.go.disabled = !allowed || this.running !== null;
  }

  async run() {
    this.running = new AbortController();
    this.jobId = newJobId();
    this.begin();
    let words = "stopped";
    try {
      await this.read();
      words = "done";
    } catch (error) {
      if (!this.running.signal.aborted) words = error.words ?? "the frontend cannot be reached";
    }
    this.finish(words);
  }

  stop() {
    if (!this.running || this.running.signal.aborted) return;
    this.running.abort();
    cancel(this.jobId);
  }

  async read() {
    for await (const event of generate(PATHS[this.style], this.body(), this.jobId, this.running.signal)) {
      if (event.kind === "text") this.write(event.text);
      else if (event.kind === "usage") this.tokens = event.tokens;
      else if (event.kind === "busy") this.say(`${event.words}; trying again`);
      else if (event.kind === "broken") this.say("the connection broke; reconnecting");
      else this.reconnect(event.at);
      this.count();
    }
  }

  body() {
    const prompt = byId("prompt").value;
    const asked = this.style === "chat" ? {messages: [{role: "user", content: prompt}]} : {prompt};
    const body = {model: this.model, ...asked};
    for (const [field, id] of [["max_tokens", "max-tokens"], ["temperature", "temperature"], ["seed", "seed"]]) {
      const input = byId(id);
      if (input.value !== "") body[field] = input.valueAsNumber;
    }
    return body;
  }

  get style() {
    return new FormData(this.form).get("style");
  }

  begin() {
    this.askedAt = performance.now();
    this.firstAt = this.lastAt = null;
    this.tokens = this.reconnections = 0;
    this.written.data = "";
    setText(byId("asked"), byId("prompt").value + (this.style === "chat" ? "\n\n" : ""));
    byId("output").hidden = byId("figures").hidden = false;
    this.form.classList.add("running");
    this.stopping.disabled = false;
    this.go.disabled = true;
    this.say("generating");
    this.count();
  }

  write(text) {
    const output = byId("output");
    const follows = output.scrollHeight - output.scrollTop - output.clientHeight < 40;
    this.written.appendData(text);
    if (follows) output.scrollTop = output.scrollHeight;
    this.lastAt = performance.now();
    this.firstAt ??= this.lastAt;
    this.tokens += 1; // one event is one token, as a rule; the usage at the end tells it exactly
  }

  reconnect(at) {
    this.reconnections += 1;
    this.say(at ? `reconnected at event ${at}` : "reconnected");
  }

  count() {
    const took = this.lastAt - this.firstAt;
    setText(byId("tokens"), count(this.tokens));
    setText(byId("token-rate"), took > 0 ? rate((1000 * (this.tokens - 1)) / took) : "–");
    setText(byId("first-token"), this.firstAt === null ? "–" : seconds((this.firstAt - this.askedAt) / 1000));
    setText(byId("reconnected"), this.reconnections ? `${this.reconnections}×` : "no");
  }

  finish(words) {
    this.running = null;
    this.form.classList.remove("running");
    this.stopping.disabled = true;
    this.go.disabled = !this.allowed;
    this.count();
    this.say(words);
  }

  say(words) {
    setText(byId("said"), words);
  }
}
