// Snapshots of the fleet, for as long as the page is looked at. A connection that breaks is made again.

import {Refusal, Watch, ask, events, pause} from "/page/asking.js";

const AGAIN_MS = 1_000;
const SILENT_MS = 5_000; // after which a frontend that sends one each second is taken for gone

/** `show` is given each snapshot, `lost` why there is none; `askKey` is waited for where a key is wanted, or another
    one. Never returns. */
export async function follow(show, lost, askKey) {
  for (;;) {
    await visible();
    const reading = new AbortController();
    const hide = () => document.hidden && reading.abort("hidden");
    document.addEventListener("visibilitychange", hide);
    let problem = "The frontend has ended the connection.";
    let again = AGAIN_MS;
    let wantsKey = false;
    try {
      await read(reading, show);
    } catch (error) {
      problem = error.words ?? "The frontend cannot be reached.";
      again = Math.max(again, error.retryAfterMs ?? 0);
      wantsKey = error.wantsKey ?? false;
    }
    document.removeEventListener("visibilitychange", hide);
    if (reading.signal.reason === "hidden") continue;
    if (wantsKey) {
      await askKey(problem);
      continue;
    }
    lost(problem);
    await pause(again);
  }
}

async function read(reading, show) {
  const watch = new Watch(SILENT_MS);
  try {
    const signal = AbortSignal.any([reading.signal, watch.signal]);
    const response = await ask("/page/fleet", {signal});
    for await (const {data} of events(response, () => watch.heard())) {
      const told = JSON.parse(data);
      if (told.error) throw new Refusal(401, told.error); // it was said to a reader whose key held once
      show(told);
    }
  } finally {
    watch.end();
  }
}

/** Browsers open few connections to one host: a page that nobody sees keeps none. */
function visible() {
  if (!document.hidden) return Promise.resolve();
  return new Promise((resolve) => document.addEventListener("visibilitychange", resolve, {once: true}));
}
