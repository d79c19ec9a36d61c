// The loop of the page: live snapshots in, panels out; actions with the token and a typed word.
import { el, plain } from "/console/draw.js";
import * as panels from "/console/panels.js";
import { choose, chosen, t } from "/console/words.js";

const $ = id => document.getElementById(id);
const COURSE_EVERY_MS = 30000, STALE_MS = 10000, AGAIN_MS = 5000, MORE_EVERY_MS = 5000, PAGE = 50, MOST = 1000;
const THEMES = ["auto", "light", "dark"];
let snapshot = null, coursesRead = 0, seenAt = 0, paused = false, wanted = PAGE, more = null, moreReadAt = 0, refusal = "", source = null;
const courses = new Map();

// A panel is made anew only when what it shows has changed: hundreds of rows are not free.
const drawn = new Map();
function draw(name, data, make) {
  const seen = `${chosen()} ${new Date().toDateString()} ${JSON.stringify(data)}`; // at midnight "today" moves on
  if (drawn.get(name) === seen) return;
  drawn.set(name, seen);
  make();
}

function show() {
  if (!snapshot) return;
  const s = snapshot, list = wanted > PAGE && more ? more : s.exchanges;
  draw("health", [s.health, s.ready, s.slo.objectives.map(o => o.state), s.slo.service], () => panels.health(s));
  draw("release", s.release, () => panels.release(s));
  draw("slo", [s.slo.objectives, coursesRead], () => panels.objectives(s, courses));
  draw("incidents", s.incidents, () => panels.incidents(s));
  draw("drift", s.drift, () => panels.drift(s));
  draw("cost", [s.slo.objectives.filter(o => o.unit === "usd" || o.indicator === "sft_cache_hit_rate"), s.saved_usd], () => panels.cost(s));
  draw("exchanges", list, () => panels.exchanges(list));
  $("more").hidden = wanted >= MOST || snapshot.exchanges.length < PAGE;
  $("main").dataset.ready = "yes";
}

function connect() {
  if (document.hidden || (source && source.readyState !== EventSource.CLOSED)) return;
  const own = source = new EventSource("/api/v1/stream");
  own.addEventListener("snapshot", event => {
    seenAt = Date.now();
    refusal = "";
    if (paused) return;
    snapshot = JSON.parse(event.data);
    say("");
    show();
    if (wanted > PAGE && seenAt - moreReadAt >= MORE_EVERY_MS) readMore();
  });
  // A browser comes back by itself only after a broken connection. An answer that is no stream (too many consoles, a
  // proxy's 502 while the guard restarts) ends a source for good.
  own.onerror = async () => {
    if (own.readyState !== EventSource.CLOSED) return;
    refusal = await askWhy();
    setTimeout(connect, AGAIN_MS);
  };
}

async function askWhy() {
  const enough = new AbortController();
  try {
    const answer = await fetch("/api/v1/stream", { cache: "no-store", signal: enough.signal });
    return answer.ok ? "" : plain((await answer.json()).error.message);
  } catch {
    return ""; // nobody there, or words of somebody else
  } finally {
    enough.abort();
  }
}

function say(text) {
  $("link").hidden = !text;
  $("link").textContent = text;
}

function watch() {
  const age = Date.now() - seenAt;
  if (paused) say(t("updates-paused"));
  else if (refusal || age > STALE_MS) say([t("lost", { age: `${Math.round(age / 1000)} s` }), refusal].filter(Boolean).join(" "));
}

async function read(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { cache: "no-store", ...options });
  } catch {
    throw new Error(t(options.method ? "perhaps-done" : "no-answer"));
  }
  if (answer.ok) return answer.json();
  const body = await answer.json().catch(() => ({})); // a proxy between says no in HTML
  throw new Error(body.error ? body.error.message : `HTTP ${answer.status}`);
}

async function readCourses() {
  try {
    for (const course of (await read("/api/v1/history")).courses) courses.set(`${course.slo} ${course.release}`, course);
    coursesRead += 1;
  } catch { return; } // the stream says when the guard is gone
  if (!paused) show();
}

function showMore() {
  wanted = Math.min(MOST, wanted * 4);
  return readMore();
}

// A long list is not in the snapshots; it is read anew beside them, so that it is as live as the rest of the page.
async function readMore() {
  moreReadAt = Date.now();
  try {
    more = (await read(`/api/v1/exchanges?limit=${wanted}`)).exchanges;
  } catch { return; } // the line above the page says when the guard is gone
  show();
}

function ask(action) {
  if (!$("token").value) {
    $("said").textContent = t("no-token");
    $("token").focus();
    return;
  }
  const release = snapshot.release;
  const word = action === "drill" ? "drill" : (release.canary ?? release.stable).name;
  const epoch = release.epoch;
  $("c-title").textContent = t(`a-${action}`);
  $("c-about").textContent = t(`about-${action}`);
  $("c-label").textContent = plain(t("type", { word }));
  $("c-word").value = "";
  $("c-go").disabled = true;
  $("c-word").oninput = () => { $("c-go").disabled = $("c-word").value !== word; };
  $("confirm").onclose = () => { if ($("confirm").returnValue === "go" && $("c-word").value === word) carryOut(action, epoch); };
  $("confirm").returnValue = "cancel";
  $("confirm").showModal();
  $("c-word").focus();
}

async function carryOut(action, epoch) {
  $("said").textContent = t("doing");
  try {
    const body = { actor: "console", reason: "console", expected_epoch: epoch };
    const result = await post(`/api/v1/release/${action}`, body);
    $("said").textContent = plain(result.message);
  } catch (error) {
    $("said").textContent = plain(error.message);
  }
}

function post(path, body) {
  return read(path, { method: "POST", body: JSON.stringify(body), headers: { "content-type": "application/json", authorization: `Bearer ${$("token").value}` } });
}

function open(title, body) {
  $("d-title").textContent = plain(title);
  $("d-body").replaceChildren(...body);
  $("detail").showModal();
}

async function openIncident(id) {
  try {
    const incident = await read(`/api/v1/incidents/${encodeURIComponent(id)}`);
    const [title, body] = panels.incidentDetail(incident);
    open(title, incident.closed_wall_s ? body : [...body, ...panels.closing(id)]);
  } catch (error) {
    open(id, [el("p", {}, error.message)]);
  }
}

async function closeIncident(id) {
  const reason = $("close-reason").value.trim();
  const need = !$("token").value ? "no-token" : reason ? "" : "no-reason";
  if (need) { $("close-said").textContent = t(need); return; }
  try {
    const done = await post(`/api/v1/incidents/${encodeURIComponent(id)}/close`, { actor: "console", reason });
    $("close-said").textContent = plain(done.message);
  } catch (error) {
    $("close-said").textContent = plain(error.message);
  }
}

async function openExchange(id) {
  if (!$("token").value) return open(id, [el("p", {}, t("words-why"))]);
  try {
    const words = await post("/api/v1/exchanges/words", { exchange_id: id });
    const parts = [["question", words.question], ["answer", words.answer]].filter(p => p[1]);
    open(id, parts.length ? parts.flatMap(([name, text]) => [el("h3", {}, t(name)), el("pre", {}, text)]) : [el("p", {}, t("no-words"))]);
  } catch (error) {
    open(id, [el("p", {}, error.message)]);
  }
  return undefined;
}

function setTheme(name) {
  document.documentElement.dataset.theme = name;
  $("theme").textContent = `${t("theme")}: ${t(`theme-${name}`)}`;
  remember("theme", name);
}

function remember(name, value) { try { localStorage.setItem(`sft-guard-${name}`, value); } catch { /* private windows have none */ } }
function remembered(name) { try { return localStorage.getItem(`sft-guard-${name}`); } catch { return null; } }

function setLanguage(name) {
  choose(name);
  setTheme(document.documentElement.dataset.theme);
  $("pause").textContent = t(paused ? "resume" : "pause");
  remember("language", chosen());
  show();
}

function togglePause() {
  paused = !paused;
  $("pause").setAttribute("aria-pressed", String(paused));
  $("pause").textContent = t(paused ? "resume" : "pause");
  say(paused ? t("updates-paused") : "");
}

function nextTheme() { setTheme(THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % THEMES.length]); }

const SECTIONS = ["health", "release", "slo", "incidents", "drift", "cost", "exchanges"];
document.addEventListener("keydown", event => {
  if (event.key === "Enter" && event.target.id === "close-reason") { // else the form around it would only shut the dialog
    event.preventDefault();
    event.target.nextElementSibling.click();
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input,textarea") || document.querySelector("dialog[open]")) return;
  if (/^[1-7]$/.test(event.key)) {
    const section = $(`s-${SECTIONS[event.key - 1]}`);
    section.setAttribute("tabindex", "-1");
    section.focus();
    section.scrollIntoView();
  } else if (event.key === "p") togglePause();
  else if (event.key === "t") nextTheme();
  else if (event.key === "l") setLanguage(chosen() === "en" ? "zh-TW" : "en");
  else if (event.key === "?") open(t("keys"), [el("p", {}, t("keys-about"))]);
});
document.addEventListener("click", event => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.dataset.action) ask(button.dataset.action);
  else if (button.dataset.incident) openIncident(button.dataset.incident);
  else if (button.dataset.closes) closeIncident(button.dataset.closes);
  else if (button.dataset.exchange) openExchange(button.dataset.exchange);
});
$("pause").onclick = togglePause;
$("theme").onclick = nextTheme;
$("language").onclick = () => setLanguage(chosen() === "en" ? "zh-TW" : "en");
$("help").onclick = () => open(t("keys"), [el("p", {}, t("keys-about"))]);
$("more").onclick = showMore;

// Nobody looks at a hidden tab, and streams are few: a guard has 16, a browser six connections for one address.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) source?.close();
  else connect();
});

const asked = new URLSearchParams(location.search);
document.documentElement.dataset.theme = [asked.get("theme"), remembered("theme")].find(name => THEMES.includes(name)) ?? "auto";
setLanguage(asked.get("lang") ?? remembered("language") ?? (navigator.language.toLowerCase().startsWith("zh") ? "zh-TW" : "en"));
seenAt = Date.now();
connect();
readCourses();
setInterval(readCourses, COURSE_EVERY_MS);
setInterval(watch, 1000);
