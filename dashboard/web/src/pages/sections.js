// Sections that are built from plain elements. Data is inserted as text, never as markup.
import { otherLimit } from "./limit";

const number = new Intl.NumberFormat();
const percent = new Intl.NumberFormat(undefined, { style: "percent", maximumFractionDigits: 1 });
const moment = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

const money = (value) => value == null ? ""
  : new Intl.NumberFormat(undefined, { style: "currency", currency: value.currency }).format(Number(value.amount));
const time = (text) => text ? moment.format(new Date(text)) : "";
const hours = (value) => value == null ? "" : value >= 2 ? `${number.format(Math.round(value * 10) / 10)} h` : `${Math.round(value * 60)} min`;
const share = (one) => one?.share == null ? "none"
  : `${percent.format(one.share)} (${percent.format(one.interval[0])} to ${percent.format(one.interval[1])}, n\u00a0=\u00a0${number.format(one.n)})`;
const ends = (one, text, n) => `(${one ? `${text(one[0])} to ${text(one[1])}, ` : ""}n\u00a0=\u00a0${number.format(n)})`;
const points = (value) => `${value > 0 ? "+" : ""}${number.format(Math.round(value * 1000) / 10)} points`;

function node(name, content, attributes = {}) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...(Array.isArray(content) ? content : [content ?? ""]));
  return made;
}

/** A table; the cells of columns that begin with # are numbers. */
function table(caption, columns, rows) {
  const right = columns.map((one) => one.startsWith("#"));
  const head = node("tr", columns.map((one, at) => node("th", one.replace("#", "") || node("span", "Text", { class: "unseen" }), { scope: "col", class: right[at] ? "number" : "" })));
  const body = rows.map((row) => node("tr", row.map((cell, at) =>
    node("td", cell instanceof Node ? cell : node("bdi", String(cell ?? "")), { class: right[at] ? "number" : "" }))));
  const made = node("table", [node("caption", `${caption} (${number.format(rows.length)})`), node("thead", head), node("tbody", body)]);
  return node("div", made, { class: "scroll", tabindex: "0", role: "group", "aria-label": caption });
}

const cards = (items) => node("ul", items.map(([label, value, more]) => node("li", [label, node("strong", value), more ?? ""])), { class: "cards" });
const note = (text) => node("p", text, { class: "note" });
const heading = (text) => node("h2", text);

/** A field of a form. */
function field(label, name, more = {}) {
  const { options, ...attributes } = more;
  const input = options ? node("select", options.map((one) => node("option", one, { value: one })), { name }) : node(more.rows ? "textarea" : "input", more.rows ? more.value : "", { name, ...attributes });
  return node("label", [label, input]);
}

/** A form of a command; `send` returns the answer's text, which stays until the section is opened again. */
function commandForm(label, fields, button, send) {
  const answer = node("p", "", { role: "status", class: "answer" });
  const form = node("form", [...fields, node("button", button)], { class: "act", "aria-label": label });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (answer.dataset.answered === "soon") return;
    answer.dataset.answered = "soon";
    form.querySelector("button").setAttribute("aria-disabled", "true"); // `disabled` would lose the focus
    try {
      answer.textContent = await send(Object.fromEntries([...new FormData(form)].filter(([, value]) => value !== "")));
      answer.dataset.answered = "yes";
    } catch (problem) { answer.textContent = problem.message; answer.dataset.answered = "no"; }
    form.querySelector("button").removeAttribute("aria-disabled");
  });
  return node("div", [form, answer]);
}
const KINDS = ["refund", "credit", "discount", "replacement", "keep_item", "fee_waiver", "upgrade", "gift", "fix", "other"];
const withMoney = (fields) => fields.amount ? { ...fields, amount: { amount: fields.amount, currency: fields.currency } } : fields;
const without = (fields, ...names) => Object.fromEntries(Object.entries(fields).filter(([name]) => !names.includes(name)));

/** A chart of lines over amounts, with axes. */
function curve(label, points_, names) {
  const [width, height, left, bottom] = [480, 200, 46, 24];
  const most = Math.max(...points_.map((one) => one.x)) || 1;
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const draw = (name, attributes, text) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text) made.textContent = text;
    svg.append(made);
  };
  const x = (value) => left + value / most * (width - left - 8);
  const y = (value) => height - bottom - value * (height - bottom - 10);
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", label);
  for (const level of [0, 0.5, 1]) {
    draw("line", { x1: left, x2: width, y1: y(level), y2: y(level), class: "axis" });
    draw("text", { x: 4, y: y(level) + 4 }, percent.format(level));
  }
  draw("text", { x: left, y: height - 6 }, "0");
  draw("text", { x: width - 70, y: height - 6 }, number.format(most));
  names.forEach((name, at) => draw("polyline", {
    class: at ? "bound" : "line", points: points_.map((one) => `${x(one.x)},${y(one[name])}`).join(" "),
  }));
  return svg;
}

async function customerValue(place, { ask }) {
  const found = await ask("loyalty", { limit: 1 });
  if (!found.currencies.length) place.append(note("No action with a customer is recorded yet."));
  if (found.drawn_customers) place.append(note(`Estimates are from ${number.format(found.drawn_customers)} randomly sampled customers.`));
  for (const one of found.currencies) {
    place.append(heading(`${one.currency}: ${number.format(one.treated)} customers with actions`));
    if (!one.ladder.length) { place.append(note(one.why)); continue; }
    for (const rung of one.ladder) {
      const lines = [...rung.spending.map((line) => [line, money]), ...rung.coming_back.map((line) => [line, points])];
      place.append(table(`${rung.days} days`, ["#level", "method", "#n", "#value", "#95 % interval", "term", "caveats"], lines.map(([line, text]) => [
        line.rung, line.method, number.format(line.n), line.value == null ? "none" : text(line.value), line.interval ? `${text(line.interval[0])} to ${text(line.interval[1])}` : "", line.value == null ? "" : line.called, line.caveats.join("; ")])));
    }
    place.append(note(`Controls: ${one.controls}.`));
    place.append(table("Customers with an action", ["within", "bought again", "had another action"], one.return_rates.map((line, at) => [`${line.days} days`, share(line), share(one.repeat_claims[at])])));
    place.append(note(one.payback.day ? `Payback (level 2): day ${one.payback.day}.` : `Payback (level 2): none; ${one.payback.why}.`));
  }
}

/** What the recommended limits would have cost and saved. */
function replayed(one) {
  const monthly = one.monthly == null ? "" : `, ${number.format(Math.round(one.monthly))} a month`;
  const saved = one.would_have_saved ? ` and ${money(one.would_have_saved)} of working time` : "";
  return `Replayed over ${number.format(Math.round(one.days))} days with this limit: ${number.format(one.given_at_once)} given at once, ${number.format(one.escalations_spared)} escalations spared${monthly}${saved}. Cost: ${money(one.not_approved)} that had no approval.`;
}

async function gap(place, { ask, me, travelling }) {
  const found = await ask("gap");
  const wait = found.overall.waiting;
  place.append(cards([["Escalations", number.format(found.overall.asked)], ["Approved as requested", found.overall.approved_anyway.share == null ? "none" : percent.format(found.overall.approved_anyway.share), share(found.overall.approved_anyway)], ["Median wait", hours(wait.median_hours) || "none", ends(wait.median_hours_interval, hours, wait.n)], ["Abandoned", number.format(wait.abandoned)]]));
  place.append(table("Remedies beyond authority", ["", "#times"], found.cannot_do.map((one) => [one.text, number.format(one.asked + one.silent)])));
  for (const one of found.recommended_limits) {
    place.append(heading(`${one.kind} for ${one.role}`));
    place.append(note(one.limit ? `Recommended: ${money(one.limit)}${one.today ? `, today ${money(one.today)}` : ""}. An escalation costs ${money(one.cost_of_asking)}; ${one.why}.` : `No recommendation: ${one.why}.`));
    if (one.simulated) place.append(note(replayed(one.simulated)));
    if (one.curve.length > 1) place.append(curve(`Approved by amount, ${one.kind} for ${one.role}; the table has the numbers`, one.curve.map((at) => ({ x: Number(at.up_to.amount), smoothed: at.smoothed, lower: at.lower })), ["smoothed", "lower"]));
    if (!travelling) place.append(otherLimit(one, me));
    if (one.curve.length) place.append(table("Approved, by amount", ["#up to", "#decided", "#approved", "#at least (95 %)"], one.curve.map((at) => [money(at.up_to), number.format(at.n), percent.format(at.smoothed), percent.format(at.lower)])));
  }
  if (found.procedure.length) place.append(table("Cost of procedure", ["kind", "#decided at once", "#cost", "#estimated cost of asking"], found.procedure.map((one) => [one.kind, number.format(one.n), money(one.given), money(one.long_way) || "unknown"])));
  place.append(note(found.caveats.join("; ") + "."));
}

async function recognition(place, { ask }) {
  const found = await ask("recognition");
  place.append(note(`${number.format(found.thanks.given)} thanks to ${number.format(found.thanks.people_thanked)} people. People are not ranked.`));
  if (found.training.length) place.append(table("Training", ["course", "#people", "opens", "#used in 90 days before", "#after"], found.training.map((one) => [one.course, one.people, one.opens.join(", "), one.used_before, one.used_after])));
  if (found.careers.length) place.append(table("Careers", ["from", "to", "#people", "#gave in 90 days before", "#after"], found.careers.map((one) => [one.from, one.to, one.people ?? "fewer than 5", one.used_before, one.used_after])));
  if (found.voices.length) place.append(table("Ideas and obstacles", ["", "#reported", "#answered", "#median days to the answer"], found.voices.map((one) => [one.what, one.said, one.answered, one.median_days_to_answer == null ? "" : `${number.format(one.median_days_to_answer)} ${ends(one.median_days_to_answer_interval, number.format, one.answered)}`])));
  if (found.morale.length) place.append(table("Morale", ["period", "team", "answered", "#score, of best", "#of the whole team"], found.morale.map((one) => [one.period, one.team, one.suppressed ? "fewer than 5, or next to such a team" : `${one.respondents} of ${one.invited}`, one.suppressed ? "" : percent.format(one.score), one.interval ? one.interval.map((edge) => percent.format(edge)).join(" to ") : ""])));
  if (found.staying.length) place.append(table("Retention", ["role", "people", "still employed after"], found.staying.map((one) => [one.role, one.n ?? "fewer than 5", one.curve.map((at) => `${at.months} months ${percent.format(at.staying)}`).join(", ")])));
  place.append(note(found.caveats.join("; ") + "."));
}

async function health(place, { ask }) {
  const found = await ask("projections");
  place.append(cards([["Last position", number.format(found.position)], ["Views behind", number.format(found.items.filter((one) => one.position < found.position).length)], ["Views stopped", number.format(found.items.filter((one) => one.stopped).length)]]));
  place.append(table("Views", ["view", "#position", "#lag", "stopped"], found.items.map((one) => [one.view, number.format(one.position), `${number.format(Math.round(one.lag_seconds * 10) / 10)} s`, one.stopped ?? ""])));
}

/** For engineers of source systems: recorded events, rejections with reasons, and checks without effect. */
let source = "";
const EXAMPLE = { specversion: "1.0", id: "example-1", source: "crm", type: "resolution.interaction.opened.v1", time: "2026-01-01T10:00:00Z", data: { interaction_id: "I-1", customer_id: "C-1", channel: "phone" } };
async function integrations(place, { ask, act, me }) {
  const found = await ask("sources");
  place.append(table("Sources", ["source", "#events", "last recorded"], found.items.map((one) => {
    const show = node("button", one.source, { type: "button", title: "Show the events of this source" });
    show.addEventListener("click", () => { source = one.source; form.querySelector("input").value = source; search(); });
    return [show, number.format(one.events), time(one.last_recorded)];
  })));
  const form = node("form", [field("source", "source", { value: source }), node("button", "Show")], { class: "search", role: "search" });
  const list = node("div");
  const search = async () => {
    if (!source) return;
    try {
      const [recorded, rejected] = await Promise.all([ask("arrivals", { source }), ask("rejections", { source })]);
      list.replaceChildren(
        table("Recorded events, newest first", ["#position", "id", "type", "time", "recorded"], recorded.items.map((one) => [one.position, one.event_id, one.type, time(one.time), time(one.recorded)])),
        table("Rejected events, newest first", ["#entry", "code", "field", "remedy", "time"], rejected.items.map((one) => [one.entry, one.code, one.field, one.message, time(one.recorded)])));
    } catch (problem) { list.replaceChildren(node("p", problem.message, { role: "alert" })); }
  };
  form.addEventListener("submit", (event) => { event.preventDefault(); source = form.querySelector("input").value.trim(); search(); });
  place.append(form, list, heading("Check an event"), note("Shows the intake's answer; nothing is recorded."),
    commandForm("Check an event", [field("event", "event", { rows: 10, cols: 60, spellcheck: "false", value: JSON.stringify(EXAMPLE, null, 2) })], "Check", async (values) => {
      let event;
      try { event = JSON.parse(values.event); } catch (problem) { return `not JSON: ${problem.message}`; }
      const answer = await act("check", event);
      return answer.accepted ? `would be accepted: ${answer.type} ${answer.id}` : `${answer.error.code}, ${answer.error.field}: ${answer.error.message}`;
    }));
  if (me.role !== "auditor") place.append(heading("Check a decision"), note("No action is taken. An amount beyond authority counts in the authority gap."),
    commandForm("Check a decision", [field("agent", "agent_id", { required: "" }), field("kind", "kind", { options: KINDS }), field("amount", "amount", { size: 8 }), field("currency", "currency", { size: 4, value: "GBP" })], "Check", async (values) => JSON.stringify(await act("preview", without(withMoney(values), "currency")))));
  await search();
}

export const SECTIONS = { value: customerValue, gap, recognition, health, integrations };
