// How the frontend that served this page is asked.

const OWN_HEADER = {"millrace-page": "1"};
const KEPT = "millrace-key"; // for as long as the tab is open, and in no other
let key = sessionStorage.getItem(KEPT) ?? "";

/** From now on it is shown with each request. */
export function showKey(given) {
  key = given;
  sessionStorage.setItem(KEPT, given);
}

/** What the service says is wrong: `message` for people, `code` its reason. */
export class Refusal extends Error {
  constructor(status, told, retryAfterMs) {
    super(told.message || `the frontend answered with ${status}`);
    this.code = told.code || "";
    this.status = status;
    this.retryAfterMs = retryAfterMs;
  }

  /** Another key would do. */
  get wantsKey() {
    return this.status === 401 || this.code === "admin_required";
  }

  get words() {
    return this.code ? `${this.message} (${this.code})` : this.message;
  }
}

/** Throws Refusal, or TypeError where nobody answers. */
export async function ask(path, options = {}) {
  const headers = {...OWN_HEADER, ...(key && {authorization: `Bearer ${key}`}), ...options.headers};
  const response = await fetch(path, {...options, headers, cache: "no-store"});
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  throw new Refusal(response.status, body.error ?? {}, Number(response.headers.get("retry-after-ms")) || 0);
}

/** Its signal aborts where nothing was heard for `ms`: a frontend that is frozen, or cut off, breaks no connection. */
export class Watch {
  constructor(ms) {
    this.ms = ms;
    this.controller = new AbortController();
    this.heard();
  }

  get signal() {
    return this.controller.signal;
  }

  heard() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.controller.abort("silent"), this.ms);
  }

  end() {
    clearTimeout(this.timer);
  }
}

/** The server-sent events of an answer, as {id, data}; comments are only heard. Throws where the connection breaks. */
export async function* events(response, heard = () => {}) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const {value, done} = await reader.read();
    if (done) return;
    heard();
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const event = parse(block);
      if (event) yield event;
    }
  }
}

function parse(block) {
  let id = "";
  const data = [];
  for (const line of block.split("\n")) {
    if (line.startsWith("id: ")) id = line.slice(4);
    if (line.startsWith("data: ")) data.push(line.slice(6));
  }
  return data.length ? {id, data: data.join("\n")} : null;
}

export function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    }, {once: true});
  });
}
