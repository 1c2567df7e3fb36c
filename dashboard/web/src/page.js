// The page reads the API, shows one section at a time, and follows the log. Data is inserted as text, never as markup.
import { SECTIONS } from "./sections.js";

const WITHOUT_TIME_TRAVEL = new Set(["me", "summary", "projections", "sources", "arrivals", "rejections"]);
const [day, clock] = [{ dateStyle: "long" }, { timeStyle: "short" }].map((style) => new Intl.DateTimeFormat(undefined, style));
const $ = (id) => document.getElementById(id);
const state = { section: "overview", asOf: null, last: 1, turn: 0, loading: 0, stale: false, focus: false, waiting: null, stream: null, me: null };

/** Reads an answer of the API; throws the problem's detail. */
async function ask(path, query = {}) {
  const parameters = new URLSearchParams(Object.entries(query).filter(([, value]) => value !== "" && value != null));
  if (state.asOf !== null && !path.startsWith("explain") && !WITHOUT_TIME_TRAVEL.has(path)) parameters.set("as_of", state.asOf);
  const answer = await fetch(`/api/v1/${path}${parameters.size ? `?${parameters}` : ""}`, { headers: { Accept: "application/json" } });
  const body = await answer.json().catch(() => ({}));
  if (answer.status === 401) signOut();
  if (!answer.ok) throw new Error(body.detail ?? `the ledger answered ${answer.status}`);
  return body;
}

/** Sends a command to the API; throws the problem's detail. */
async function act(path, body) {
  const answer = await fetch(`/api/v1/${path}`, {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
  });
  const result = await answer.json().catch(() => ({}));
  if (answer.status === 401) signOut();
  if (!answer.ok) throw new Error(result.detail ?? `the ledger answered ${answer.status}`);
  return result;
}

/** Reads a list page by page, up to `most` items. */
async function all(path, query = {}, most = 1000) {
  const found = [];
  let page = await ask(path, { ...query, limit: Math.min(most, 1000) });
  found.push(...page.items);
  while (page.next && found.length < most) {
    page = await ask(path, { ...query, limit: 1000, after: page.next });
    found.push(...page.items);
  }
  return { ...page, items: found };
}

function signOut() {
  state.stream?.close();
  for (const id of ["nav", "travel", "sign-out"]) $(id).hidden = true;
  $("section").replaceChildren();
  $("sign-in").hidden = false;
  $("token").focus();
}

/** Whether a form has the focus or shows an answer: then the section is not replaced. */
function isInUse() {
  const typing = $("section").contains(document.activeElement) && document.activeElement.closest("form") !== null;
  return typing || $("section").querySelector("[data-answered]") !== null;
}

/** Fills and shows a section; `again` marks an update of the same section. */
async function show(section, { focus = false, again = false } = {}) {
  const turn = ++state.turn;
  state.loading += 1;
  state.stale = false;
  state.focus ||= focus;
  state.section = SECTIONS[section] ? section : "overview";
  for (const link of $("nav").children) {
    if (link.hash === `#${state.section}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const place = document.createElement("div");
  const title = document.createElement("h1");
  title.textContent = SECTIONS[state.section].title;
  place.append(title);
  try {
    await SECTIONS[state.section].fill(place, { ask, all, act, me: state.me, travelling: state.asOf !== null });
  } catch (problem) {
    const alert = document.createElement("p");
    alert.setAttribute("role", "alert");
    alert.textContent = problem.message;
    place.append(alert);
  }
  state.loading -= 1;
  if (state.stale) refresh();
  if (turn !== state.turn || (again && isInUse())) return; // another section was opened meanwhile, or a form is in use
  $("section").replaceChildren(place);
  document.title = `${SECTIONS[state.section].title} · Resolution Ledger`;
  if (state.focus) {
    state.focus = false;
    $("main").focus({ preventScroll: true });
    scrollTo(0, 0);
  }
}

/** Updates the section soon, but never while it is loading: on a busy ledger it would never be shown. */
function refresh() {
  state.stale = true;
  if (state.loading || state.waiting || isInUse() || state.asOf !== null) return;
  state.waiting = setTimeout(() => { state.waiting = null; if (state.loading) state.stale = true; else if (state.asOf === null) show(state.section, { again: true }); }, 150);
}

/** Keeps the page live: the section is read again after a view has changed. */
function follow() {
  state.stream = new EventSource("/api/v1/stream");
  state.stream.addEventListener("view", (update) => {
    const { position } = JSON.parse(update.data);
    state.last = Math.max(state.last, position);
    $("position").max = state.last;
    if (state.asOf === null) {
      $("position").value = state.last;
      refresh();
    }
  });
  state.stream.onopen = () => { $("state").textContent = "Live."; };
  state.stream.onerror = () => { $("state").textContent = "Waiting for the ledger…"; };
}

/** Shows the state at a position, with the time of its last event; `null` is the present. */
async function travelTo(position) {
  state.asOf = position === null || position >= state.last ? null : position;
  $("position").value = state.asOf ?? state.last;
  $("moment").value = state.asOf === null ? "now" : `position ${state.asOf}`;
  show(state.section);
  if (state.asOf === null) return;
  const modified = (await fetch(`/api/v1/balances?limit=1&as_of=${position}`)).headers.get("Last-Modified");
  if (modified && state.asOf === position) $("moment").value = `${day.format(new Date(modified))}, ${clock.format(new Date(modified))}`;
}

async function begin() {
  const session = await (await fetch("/api/v1/session")).json();
  if (!session.known) return signOut();
  const me = state.me = await ask("me");
  $("sign-in").hidden = true;
  for (const id of ["nav", "travel", "sign-out"]) $(id).hidden = false;
  const links = Object.entries(SECTIONS).filter(([, one]) => !one.roles || one.roles.includes(me.role)).map(([name, one]) => {
    const link = document.createElement("a");
    link.href = `#${name}`;
    link.textContent = one.title;
    return link;
  });
  $("nav").replaceChildren(...links);
  state.last = (await ask("projections")).position;
  $("position").max = state.last;
  $("state").textContent = `${me.name}, ${me.role}`;
  travelTo(null);
  follow();
}

$("sign-in").addEventListener("submit", async (event) => {
  event.preventDefault();
  const answer = await fetch("/api/v1/session", {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ token: $("token").value }),
  });
  $("token").value = "";
  $("refused").textContent = answer.ok ? "" : (await answer.json()).detail;
  if (answer.ok) {
    await begin();
    $("main").focus({ preventScroll: true });
  }
});
$("sign-out").addEventListener("click", async () => { await fetch("/api/v1/session", { method: "DELETE" }); signOut(); });
$("position").addEventListener("change", () => travelTo(Number($("position").value)));
$("position").addEventListener("input", () => { $("moment").value = `position ${$("position").value}`; });
$("now").addEventListener("click", () => travelTo(null));
$("travel").addEventListener("submit", (event) => event.preventDefault());
addEventListener("hashchange", () => show(location.hash.slice(1), { focus: true }));
state.section = location.hash.slice(1) || "overview";
begin();
