// The page: asks the API, shows one section at a time, goes along with the log. No data is ever put in as markup.
import { SECTIONS } from "/assets/sections.js";

const STILL = new Set(["sources", "arrivals", "rejections"]); // what does not travel in time
const $ = (id) => document.getElementById(id);
const state = { section: "monday", asOf: null, last: 1, turn: 0, loading: 0, stale: false, focus: false, waiting: null, stream: null, me: null };

/** An answer of the API; rejects with the problem's detail. */
async function ask(path, query = {}) {
  const asked = new URLSearchParams(Object.entries(query).filter(([, value]) => value !== "" && value != null));
  if (state.asOf !== null && !path.startsWith("projections") && path !== "me" && !path.startsWith("explain") && !STILL.has(path)) asked.set("as_of", state.asOf);
  const answer = await fetch(`/api/v1/${path}${asked.size ? `?${asked}` : ""}`, { headers: { Accept: "application/json" } });
  const body = await answer.json().catch(() => ({}));
  if (answer.status === 401) leave();
  if (!answer.ok) throw new Error(body.detail ?? `the ledger answers ${answer.status}`);
  return body;
}

/** Has the ledger do something; rejects with the problem's detail. */
async function act(path, body) {
  const answer = await fetch(`/api/v1/${path}`, {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
  });
  const said = await answer.json().catch(() => ({}));
  if (answer.status === 401) leave();
  if (!answer.ok) throw new Error(said.detail ?? `the ledger answers ${answer.status}`);
  return said;
}

/** Everything of a list, page by page, at most so many. */
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

function leave() {
  state.stream?.close();
  for (const id of ["nav", "travel", "leave"]) $(id).hidden = true;
  $("section").replaceChildren();
  $("enter").hidden = false;
  $("token").focus();
}

/** Whether somebody is filling in a form here, or reads what it answered: then nothing is put in its place. */
function used() {
  const typing = $("section").contains(document.activeElement) && document.activeElement.closest("form") !== null;
  return typing || $("section").querySelector("[data-answered]") !== null;
}

/** Fills the section and puts it in place; `again`: the same once more, for news alone. */
async function show(section, { focus = false, again = false } = {}) {
  const turn = ++state.turn;
  state.loading += 1;
  state.stale = false;
  state.focus ||= focus;
  state.section = SECTIONS[section] ? section : "monday";
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
    const said = document.createElement("p");
    said.setAttribute("role", "alert");
    said.textContent = problem.message;
    place.append(said);
  }
  state.loading -= 1;
  if (state.stale) refresh();
  if (turn !== state.turn || (again && used())) return; // something else was asked for meanwhile, or a form is used by now
  $("section").replaceChildren(place);
  document.title = `${SECTIONS[state.section].title} · Resolution Ledger`;
  if (state.focus) {
    state.focus = false;
    $("main").focus({ preventScroll: true });
    scrollTo(0, 0);
  }
}

/** Show the same again, soon: never while it is being loaded, or a busy ledger would keep it from ever being shown. */
function refresh() {
  state.stale = true;
  if (state.loading || state.waiting || used() || state.asOf !== null) return;
  state.waiting = setTimeout(() => { state.waiting = null; if (state.loading) state.stale = true; else if (state.asOf === null) show(state.section, { again: true }); }, 150);
}

/** The live page: what it shows is asked for again once a view has news. */
function follow() {
  state.stream = new EventSource("/api/v1/stream");
  state.stream.addEventListener("view", (news) => {
    const { position } = JSON.parse(news.data);
    state.last = Math.max(state.last, position);
    $("position").max = state.last;
    if (state.asOf === null) {
      $("position").value = state.last;
      $("moment").value = `now (${state.last})`;
      refresh();
    }
  });
  state.stream.onopen = () => { $("state").textContent = "Live."; };
  state.stream.onerror = () => { $("state").textContent = "Waiting for the ledger…"; };
}

function travelTo(position) {
  state.asOf = position === null || position >= state.last ? null : position;
  $("position").value = state.asOf ?? state.last;
  $("moment").value = state.asOf === null ? `now (${state.last})` : String(state.asOf);
  show(state.section);
}

async function begin() {
  const session = await (await fetch("/api/v1/session")).json();
  if (!session.known) return leave();
  const me = state.me = await ask("me");
  $("enter").hidden = true;
  for (const id of ["nav", "travel", "leave"]) $(id).hidden = false;
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

$("enter").addEventListener("submit", async (event) => {
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
$("leave").addEventListener("click", async () => { await fetch("/api/v1/session", { method: "DELETE" }); leave(); });
$("position").addEventListener("change", () => travelTo(Number($("position").value)));
$("position").addEventListener("input", () => { $("moment").value = $("position").value; });
$("now").addEventListener("click", () => travelTo(null));
$("travel").addEventListener("submit", (event) => event.preventDefault());
addEventListener("hashchange", () => show(location.hash.slice(1), { focus: true }));
state.section = location.hash.slice(1) || "monday";
begin();
