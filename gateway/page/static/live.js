// The live page: regions that are fetched again, events of runs, trials in a dialog, and answers as they come.
// Every address is this server's. HTML is only what the server's templates escaped; everything else is set as text.

const POLL_MS = 10_000, AGAIN_MS = 10_000, FINDINGS_MS = 5_000;
const LINES = 30, ROWS = 20;
const NOT_SHOWN = /[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g;
const visible = (text) => text.replace(NOT_SHOWN, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);
const all = (selector, below = document) => [...below.querySelectorAll(selector)];
const element = (tag, text) => Object.assign(document.createElement(tag), { textContent: text });
const byId = (id) => document.getElementById(id);
const say = (text) => { const at = byId("connection"); if (at.textContent !== text) at.textContent = text; };

// --- regions -----------------------------------------------------------------------------------------------------
const shown = new Map(); // a region's id → the HTML that it was made of

async function fetched(address) {
  const response = await fetch(address, { headers: { Accept: "text/html" } });
  if (response.status === 401) location.reload();
  if (!response.ok) throw new Error(`${response.status} ${response.statusText}`);
  return new DOMParser().parseFromString(await response.text(), "text/html");
}

const nameOf = (element) => element.getAttribute("href") ?? element.getAttribute("aria-label") ?? element.textContent;

function replace(fresh) {
  const old = byId(fresh.id), html = fresh.outerHTML, selection = getSelection();
  if (!old || shown.get(fresh.id) === html) return;
  if (!selection.isCollapsed && old.contains(selection.anchorNode)) return; // somebody copies from it
  shown.set(fresh.id, html);
  const open = all("details", old).map((details) => details.open);
  const focused = old.contains(document.activeElement) && document.activeElement;
  old.replaceWith(document.adoptNode(fresh));
  all("details", fresh).forEach((details, place) => { details.open = open[place] ?? false; });
  if (focused) all("a, summary, [tabindex]", fresh).find((one) => nameOf(one) === nameOf(focused))?.focus({ preventScroll: true });
  all("[data-run]", fresh.parentElement).forEach((at) => showWaits(at));
}

async function refresh(address, selector) {
  try {
    for (const fresh of all(selector, await fetched(address))) replace(fresh);
    return true;
  } catch (error) {
    say(`cannot be updated: ${error.message}`);
    return false;
  }
}

async function poll() {
  if (!document.hidden && await refresh(location.href, "[data-region][data-poll]")) {
    if (!watching()) say("");
    connect();
  }
  setTimeout(poll, POLL_MS);
}

let findingsDue = false, findingsBusy = false;

async function findings() {
  const region = document.querySelector("[data-src]");
  findingsDue = true;
  if (!region || findingsBusy) return;
  findingsBusy = true;
  while (findingsDue) {
    findingsDue = false;
    const began = performance.now();
    await refresh(region.dataset.src, "#findings");
    await refresh(location.href, "[data-region][data-with-findings]");
    // A report that takes long is asked for less often.
    await new Promise((done) => setTimeout(done, FINDINGS_MS + 3 * (performance.now() - began)));
  }
  findingsBusy = false;
}

// --- events ------------------------------------------------------------------------------------------------------
const cursors = new Map(), waits = new Map(); // by run: where to continue, and what it waits for
let source = null, watched = "";

const watching = () => source !== null;
const wanted = () => all("[data-watch]").flatMap((at) => at.dataset.watch.split(" ")).filter(Boolean);

function connect() {
  const runs = document.hidden ? [] : wanted();
  if (runs.join(" ") === watched) return;
  disconnect();
  if (!runs.length) return;
  watched = runs.join(" ");
  const query = new URLSearchParams(runs.map((run) => ["run", run]));
  query.set("after", runs.filter((run) => cursors.has(run)).map((run) => `${run}:${cursors.get(run)}`).join(" "));
  source = new EventSource(`/live/events?${query}`);
  source.onopen = () => say("live");
  source.onerror = () => {
    say("connection lost; trying again");
    if (source?.readyState === EventSource.CLOSED) again();
  };
  source.addEventListener("run", (event) => {
    for (const one of event.lastEventId.split(" ")) cursors.set(...one.split(":"));
    say("live");
    news(JSON.parse(event.data));
  });
  source.addEventListener("lost", (event) => say(visible(JSON.parse(event.data).message)));
  source.addEventListener("failed", (event) => { say(visible(JSON.parse(event.data).message)); again(); });
  source.addEventListener("ended", async () => {
    source.close();
    source = null;
    say("");
    await refresh(location.href, "[data-region]:not([data-src])");
    findings();
  });
}

function disconnect() {
  source?.close();
  source = null;
  watched = "";
}

function again() {
  disconnect();
  setTimeout(async () => {
    await refresh(location.href, "[data-region]:not([data-src])"); // asks for the token, if that is what is missing
    connect();
  }, AGAIN_MS);
}

function set(at, field, value) {
  for (const one of all(`[data-field="${field}"]`, at)) one.textContent = value;
}

function news(told) {
  const of = told.state ? new Map() : waits.get(told.run) ?? new Map(); // a state ends earlier waits
  waits.set(told.run, of);
  for (const [doing, text] of Object.entries(told.waits)) text ? of.set(doing, text) : of.delete(doing);
  for (const at of all("[data-run]").filter((one) => one.dataset.run === told.run)) {
    set(at, "stage", told.stage);
    set(at, "done", told.done.toLocaleString("en"));
    set(at, "total", told.total.toLocaleString("en"));
    for (const bar of all("progress", at)) [bar.max, bar.value] = [Math.max(1, told.total), told.done];
    if (told.state) {
      set(at, "state", told.state);
      for (const one of all('[data-field="state"]', at)) one.className = `state ${told.state}`;
    }
    showWaits(at);
  }
  const lines = byId("lines"), rows = document.querySelector("#now tbody");
  if (!lines) return;
  lines.prepend(...told.lines.reverse().map((text) => element("li", text)));
  rows.prepend(...told.rows.reverse().map((html) => {
    const template = document.createElement("template");
    template.innerHTML = html;
    return template.content;
  }));
  while (lines.children.length > LINES) lines.lastChild.remove();
  while (rows.children.length > ROWS) rows.lastElementChild.remove();
  if (told.ended || told.state) findings();
}

function showWaits(at) {
  const of = waits.get(at.dataset.run);
  if (!of) return;
  for (const list of all('[data-field="waits"]', at)) {
    const text = [...of].map(([doing, why]) => `waits (${doing}): ${why}`);
    if (text.join() === all("p", list).map((one) => one.textContent).join()) continue;
    list.replaceChildren(...text.map((one) => element("p", one)));
  }
}

// --- a trial in a dialog -----------------------------------------------------------------------------------------
const dialog = byId("dialog");
let opener = null;

document.addEventListener("click", async (event) => {
  const link = event.target.closest?.("a[data-dialog]");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
  event.preventDefault();
  try {
    const found = (await fetched(link.href)).getElementById("trial");
    dialog.lastElementChild.replaceChildren(document.adoptNode(found));
    if (dialog.open) return; // a link inside it: closing returns to the one outside
    opener = link;
    dialog.showModal();
  } catch {
    location.href = link.href; // the page shows the error
  }
});
dialog.addEventListener("close", () => {
  dialog.lastElementChild.replaceChildren();
  // The browser returns to the link, unless its table was fetched again meanwhile.
  if (!opener.isConnected) all("a[data-dialog]").find((link) => link.href === opener.href)?.focus({ preventScroll: true });
});

// --- asking ------------------------------------------------------------------------------------------------------
const form = byId("ask"), stop = byId("stop");
let asking = null;

async function answer(model, into, signal) {
  into.textContent = "";
  const messages = [{ role: "user", content: byId("question").value }];
  const body = JSON.stringify({ model, messages, stream: true, temperature: 0, max_tokens: Number(form.dataset.tokens) });
  try {
    const response = await fetch("/live/answers", { method: "POST", headers: { "Content-Type": "application/json" }, body, signal });
    if (!response.ok) throw new Error((await response.json()).error.message);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (let got = await reader.read(); !got.done; got = await reader.read()) {
      const events = (rest + got.value).split("\n\n");
      rest = events.pop();
      for (const data of events.map((event) => event.slice("data: ".length)).filter((data) => data !== "[DONE]")) {
        const told = JSON.parse(data);
        if (told.error) throw new Error(told.error.message);
        into.append(visible(told.choices[0]?.delta.content ?? ""));
      }
    }
  } catch (error) {
    if (error.name === "AbortError") return;
    into.append(Object.assign(element("p", visible(error.message)), { className: "error" }));
  }
}

form?.addEventListener("submit", async (event) => {
  event.preventDefault();
  asking?.abort();
  const mine = asking = new AbortController();
  stop.disabled = false;
  await Promise.all([answer(form.dataset.alias, byId("answer"), mine.signal), answer("base", byId("answer-base"), mine.signal)]);
  if (asking === mine) stop.disabled = true;
});
stop?.addEventListener("click", () => asking?.abort());

// --- start -------------------------------------------------------------------------------------------------------
document.addEventListener("visibilitychange", connect);
connect();
// Of a run that goes on, the stream's first message says its state, and then the findings follow: a report takes longer.
if (document.querySelector("[data-src]:not(:has(h2))") && !watching()) findings();
if (document.querySelector("[data-poll]")) setTimeout(poll, POLL_MS);
