// A picture, a sound or a text; and its labels, or what is said in it.

import {Refusal, ask, events} from "/page/asking.js";
import {byId, made, seconds, setBar, setText} from "/page/dom.js";

const PICTURE = {
  accept: "image/png,image/jpeg,image/webp",
  words: "Drop a picture here, or choose a PNG, JPEG or WebP file",
};
const SOUND = {accept: ".wav,.flac,audio/wav,audio/flac", words: "Drop a sound here, or choose a WAV or FLAC file"};
const TASKS = {
  "image-classification": {...PICTURE, input: "image", path: "/page/classify", verb: "Classify"},
  "audio-classification": {...SOUND, input: "audio", path: "/page/classify", verb: "Classify"},
  "text-classification": {accept: "", words: "", input: "text", path: "/page/classify", verb: "Classify"},
  "speech-recognition": {...SOUND, input: "audio", path: "/page/transcribe", verb: "Transcribe"},
};

export class Files {
  constructor() {
    this.chooser = byId("file");
    this.drop = byId("drop");
    this.task = {};
    this.file = this.asked = null;
    this.chooser.addEventListener("change", () => this.choose(this.chooser.files[0]));
    this.drop.addEventListener("dragover", (event) => {
      event.preventDefault();
      this.drop.classList.add("over");
    });
    this.drop.addEventListener("dragleave", () => this.drop.classList.remove("over"));
    this.drop.addEventListener("drop", (event) => {
      event.preventDefault();
      this.drop.classList.remove("over");
      this.choose(event.dataTransfer.files[0]);
    });
    byId("picture").addEventListener("error", () => byId("picture").hidden = true);
    byId("files").addEventListener("submit", (event) => {
      event.preventDefault();
      this.send();
    });
  }

  /** A file that another model of the same task was given is given to this one too. */
  turnTo(model, task) {
    if (model === this.model) return;
    const before = this.task;
    this.model = model;
    this.task = TASKS[task];
    this.chooser.accept = this.task.accept;
    setText(byId("drop-words"), this.task.words);
    setText(byId("send"), this.task.verb);
    this.drop.hidden = this.task.input === "text";
    byId("text-field").hidden = this.task.input !== "text";
    this.choose(this.task === before ? this.file : null);
  }

  /** Undefined: a dialogue that was left without a choice. */
  choose(file) {
    if (file === undefined) return;
    this.asked?.abort();
    this.file = file;
    this.clear();
    this.say("");
    this.preview();
    if (file) this.send();
    else this.chooser.value = "";
  }

  preview() {
    if (this.url) URL.revokeObjectURL(this.url);
    this.url = this.file ? URL.createObjectURL(this.file) : "";
    for (const [id, input] of [["picture", "image"], ["sound", "audio"]]) {
      const element = byId(id);
      element.hidden = !(this.url && input === this.task.input);
      if (element.hidden) element.removeAttribute("src");
      else element.src = this.url;
    }
    this.drop.classList.toggle("filled", Boolean(this.url));
  }

  async send() {
    const body = this.task.input === "text" ? byId("text").value : this.file;
    if (!body) return this.say(this.task.input === "text" ? "there is no text yet" : "there is no file yet");
    this.asked?.abort();
    const asked = this.asked = new AbortController();
    const since = performance.now();
    this.clear();
    this.say("asking the model");
    try {
      await this.read(body, asked.signal);
      this.say(`done in ${seconds((performance.now() - since) / 1000)}`);
    } catch (error) {
      if (!asked.signal.aborted) this.say(error.words ?? "the connection broke");
    }
  }

  async read(body, signal) {
    const query = new URLSearchParams({model: this.model, input: this.task.input});
    const headers = {"content-type": "application/octet-stream"};
    const response = await ask(`${this.task.path}?${query}`, {method: "POST", body, headers, signal});
    if (this.task.path === "/page/classify") return this.label((await response.json()).labels);
    byId("transcript").hidden = false;
    for await (const {data} of events(response)) {
      if (data === "[DONE]") return;
      const told = JSON.parse(data);
      if (told.error) throw new Refusal(400, told.error, 0);
      byId("transcript").append(told.text);
    }
    throw new TypeError("the end did not come");
  }

  label(labels) {
    byId("labels").replaceChildren(...labels.map(({name, score}) => {
      const row = made("label-template");
      setText(row.querySelector(".name"), name);
      setText(row.querySelector(".figure"), `${(100 * score).toFixed(1)} %`);
      setBar(row, score, 1);
      return row;
    }));
  }

  clear() {
    byId("labels").replaceChildren();
    byId("transcript").replaceChildren();
    byId("transcript").hidden = true;
  }

  say(words) {
    setText(byId("file-said"), words);
  }
}
