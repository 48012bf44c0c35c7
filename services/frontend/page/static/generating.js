// Text over OpenAI's API, in a stream that goes on where it broke.

import {Refusal, Watch, ask, events, pause} from "/page/asking.js";

const AGAIN = [429, 503];
const AGAIN_MS = 500;
const SILENT_MS = 35_000; // a stream that has nothing to tell says so every 15 s
const PATIENCE_MS = 60_000; // how long nothing may come through before it is given up

/**
 * Yields what happens: {kind: "text", text}, {kind: "usage", tokens}, {kind: "broken"}, {kind: "busy", words},
 * {kind: "again", at}; returns at the end. The job has a name, so that a request which is made again finds it.
 * Throws Refusal.
 */
export async function* generate(path, body, jobId, signal) {
  const request = {...body, stream: true, stream_options: {include_usage: true}};
  let lastId = "", heardAt = performance.now(), broken = false;
  for (;;) {
    const headers = {"content-type": "application/json", "millrace-job-id": jobId};
    if (lastId) headers["last-event-id"] = lastId;
    let wait = AGAIN_MS, busy = false;
    const watch = new Watch(SILENT_MS);
    const heard = () => {
      heardAt = performance.now();
      watch.heard();
    };
    try {
      const options = {method: "POST", headers, body: JSON.stringify(request)};
      const response = await ask(path, {...options, signal: AbortSignal.any([signal, watch.signal])});
      if (response.status === 204) return;
      if (broken) yield {kind: "again", at: offset(lastId)};
      broken = false;
      for await (const {id, data} of events(response, heard)) {
        if (data === "[DONE]") return;
        yield* told(JSON.parse(data));
        lastId = id || lastId;
      }
    } catch (error) {
      signal.throwIfAborted();
      if (error instanceof Refusal) {
        if (!AGAIN.includes(error.status)) throw error;
        wait = Math.max(wait, error.retryAfterMs);
        yield {kind: "busy", words: error.words};
      }
      if (performance.now() - heardAt > PATIENCE_MS) throw error;
      busy = error instanceof Refusal;
    } finally {
      watch.end();
    }
    if (!busy) {
      if (!broken) yield {kind: "broken"};
      broken = true;
    }
    await pause(wait, signal);
  }
}

function* told(message) {
  if (message.error) throw new Refusal(400, message.error, 0);
  for (const choice of message.choices) {
    yield {kind: "text", text: choice.text ?? choice.delta?.content ?? ""};
  }
  if (message.usage) yield {kind: "usage", tokens: message.usage.completion_tokens};
}

/** An event's id is JOB.OFFSET.…: how many events were seen. */
function offset(id) {
  return Number(id.split(".")[1] ?? 0);
}

export function newJobId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** At once: the stream alone would leave it to its resume window. */
export function cancel(jobId) {
  return ask(`/page/cancel?job=${encodeURIComponent(jobId)}`, {method: "POST"}).catch(() => {});
}
