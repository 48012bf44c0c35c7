// Puts the parts of the page together.

import {showKey} from "/page/asking.js";
import {byId, setText} from "/page/dom.js";
import {follow} from "/page/feed.js";
import {Models, Tiles, Workers} from "/page/fleet.js";
import {Playground} from "/page/playground.js";

const tiles = new Tiles(), models = new Models(), workers = new Workers(), playground = new Playground();
let shownAt = "";

function show(fleet) {
  setText(byId("where"), `frontend ${fleet.frontend.id}`);
  if (fleet.problem) return warn(`${sentence(fleet.problem)}${asOf()}`, "trouble");
  shownAt = new Date(fleet.at_ms).toLocaleTimeString();
  for (const part of [tiles, models, workers, playground]) part.show(fleet);
  if (fleet.frontend.draining) return warn("This frontend is draining: its last streams are ending.", "trouble");
  byId("banner").hidden = true;
  say("live", "live");
}

function lost(problem) {
  warn(`${sentence(problem)} Trying again…${asOf()}`, "lost");
}

/** Returns when the reader has given a key. */
function askKey(problem) {
  const form = byId("key-form"), field = byId("key");
  warn(sentence(problem), "lost");
  say("key wanted", "lost");
  form.hidden = false;
  field.focus();
  return new Promise((resolve) => {
    form.onsubmit = (event) => {
      event.preventDefault();
      showKey(field.value.trim());
      field.value = "";
      form.hidden = true;
      resolve();
    };
  });
}

function sentence(words) {
  return words[0].toUpperCase() + words.slice(1) + (words.endsWith(".") ? "" : ".");
}

function asOf() {
  return shownAt && ` What stands here is as of ${shownAt}.`;
}

function warn(words, state) {
  byId("banner").hidden = false;
  setText(byId("banner"), words);
  say(state === "lost" ? "reconnecting" : "degraded", state);
}

function say(words, state) {
  setText(byId("link"), words);
  byId("link").dataset.state = state;
  document.body.dataset.state = state;
}

follow(show, lost, askKey);
