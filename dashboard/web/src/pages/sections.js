// Sections that are built from plain elements. Data is inserted as text, never as markup.
import { h, render } from "preact";
import { withStyles } from "../components/chart";
import { Card } from "../components/parts";
import { Table, save } from "../components/table";
import { words } from "../format";
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

/** A cell that sorts and exports by one value, and shows another. */
const cell = (value, shown) => ({ value, shown });
/** An amount; the column or one beside it names the currency. */
const amountCell = (value, missing) => cell(value == null ? null : Number(value.amount), money(value) || missing);
const valueOf = (one) => one instanceof Node ? one.textContent : one !== null && typeof one === "object" ? one.value : one;
function Shown({ of }) {
  if (of instanceof Node) return h("span", { ref: (place) => place?.replaceChildren(of) });
  return h("bdi", null, String((of !== null && typeof of === "object" ? of.shown : typeof of === "number" ? number.format(of) : of) ?? ""));
}

const shareCell = (one) => cell(one?.share ?? null, share(one));

/** A card with a table; the cells of columns that begin with # are numbers. */
function table(caption, columns, rows, perPage = 20) {
  const place = document.createElement("div");
  const shown = columns.map((name, at) => ({
    title: name.replace("#", ""), right: name.startsWith("#"), value: (row) => valueOf(row[at]), cell: (row) => h(Shown, { of: row[at] }),
  }));
  render(h(Card, { title: caption }, h(Table, { caption, hideCaption: true, rows, columns: shown, perPage })), place);
  return place;
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
      const lines = [...rung.spending.map((line) => [line, money]), ...rung.coming_back.map((line) => [line, points])]
        .sort(([a], [b]) => (a.value == null) - (b.value == null) || b.rung - a.rung); // the best evidence first
      if (lines.every(([line]) => line.value == null)) {
        const why = [...new Set(lines.flatMap(([line]) => line.caveats))].join("; ");
        place.append(node("details", [node("summary", `Within ${rung.days} days: no estimate yet`), note(`${words(why)}.`)]));
        continue;
      }
      place.append(table(`Within ${rung.days} days, ${one.currency}`, ["#Level", "Method", "#n", "#Difference", "Unit", "#95 % interval", "Reads as", "Caveats"], lines.map(([line, text]) => [
        line.rung, words(line.method), line.n, cell(line.value == null ? null : text === money ? Number(line.value.amount) : line.value * 100, line.value == null ? "none" : text(line.value)), text === money ? one.currency : "points", line.interval ? `${text(line.interval[0])} to ${text(line.interval[1])}` : "", line.value == null ? "" : line.called, line.caveats.join("; ")]), 4));
    }
    place.append(note(`Controls: ${one.controls}.`));
    place.append(table(`Customers with an action, ${one.currency}`, ["Within", "#Bought again", "#Had another action"], one.return_rates.map((line, at) => [cell(line.days, `${line.days} days`), shareCell(line), shareCell(one.repeat_claims[at])])));
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
  place.append(table("Remedies beyond authority", ["Kind", "Reason", "#Times", "#Blocked", "#Escalated", "#Approved in full", "#Hours waited"], found.cannot_do.map((one) => [words(one.kind), words(one.reason), one.asked + one.silent, one.silent, one.asked, one.approved_anyway, cell(one.hours, number.format(Math.round(one.hours * 10) / 10))])));
  const limits = node("div", [], { class: "two" });
  for (const one of [...found.recommended_limits].sort((a, b) => (a.limit === null) - (b.limit === null))) {
    const parts = [node("header", node("h2", `${words(one.kind)} for ${one.role}, ${one.currency}`)), note(one.limit ? `Recommended: ${money(one.limit)}${one.today ? `, today ${money(one.today)}` : ""}. An escalation costs ${money(one.cost_of_asking)}; ${one.why}.` : `No recommendation: ${one.why}.`)];
    if (one.simulated) parts.push(note(replayed(one.simulated)));
    if (one.curve.length > 1) {
      const chart = curve(`Approved by amount, ${one.kind} for ${one.role}; the table has the numbers`, one.curve.map((at) => ({ x: Number(at.up_to.amount), smoothed: at.smoothed, lower: at.lower })), ["smoothed", "lower"]);
      const file = node("button", "SVG", { type: "button", class: "plain" });
      file.addEventListener("click", () => save(`approved-${one.kind}-${one.role}.svg`, "image/svg+xml", withStyles(chart)));
      parts[0].append(node("div", file, { class: "tools" }));
      parts.push(chart);
    }
    if (!travelling) parts.push(otherLimit(one, me));
    limits.append(node("section", parts, { class: "card" }));
    if (one.curve.length) limits.append(table(`Approved by amount, ${words(one.kind).toLowerCase()} for ${one.role}`, [`#Up to, ${one.currency}`, "#Decided", "#Approved", "#At least (95 %)"], one.curve.map((at) => [cell(Number(at.up_to.amount), money(at.up_to)), at.n, cell(at.smoothed, percent.format(at.smoothed)), cell(at.lower, percent.format(at.lower))])));
  }
  place.append(limits);
  if (found.procedure.length) place.append(table("Cost of procedure", ["Kind", "#Decided at once", "Currency", "#Cost", "#Estimated cost of asking"], found.procedure.map((one) => [words(one.kind), one.n, one.given.currency, amountCell(one.given, ""), amountCell(one.long_way, "unknown")])));
  place.append(note(words(found.caveats.join("; ")) + "."));
}

async function recognition(place, { ask }) {
  const found = await ask("recognition");
  place.append(note(`${number.format(found.thanks.given)} thanks to ${number.format(found.thanks.people_thanked)} people. People are not ranked.`));
  if (found.training.length) place.append(table("Training", ["Course", "#People", "Opens", "#Used in 90 days before", "#Used in 90 days after"], found.training.map((one) => [one.course, one.people, one.opens.map(words).join(", "), one.used_before, one.used_after])));
  if (found.careers.length) place.append(table("Careers", ["From", "To", "#People", "#Actions in 90 days before", "#Actions in 90 days after"], found.careers.map((one) => [one.from, one.to, one.people ?? "fewer than 5", one.used_before, one.used_after])));
  if (found.voices.length) place.append(table("Ideas and obstacles", ["What", "#Reported", "#Answered", "#Median days to the answer"], found.voices.map((one) => [words(one.what), one.said, one.answered, cell(one.median_days_to_answer, one.median_days_to_answer == null ? "" : `${number.format(one.median_days_to_answer)} ${ends(one.median_days_to_answer_interval, number.format, one.answered)}`)])));
  if (found.morale.length) place.append(table("Morale", ["Period", "Team", "Answered", "#Score, of best", "#Of the whole team"], found.morale.map((one) => [one.period, one.team, one.suppressed ? "fewer than 5, or next to such a team" : `${one.respondents} of ${one.invited}`, one.suppressed ? "" : cell(one.score, percent.format(one.score)), one.interval ? cell(one.interval[0], one.interval.map((edge) => percent.format(edge)).join(" to ")) : ""])));
  if (found.staying.length) place.append(table("Retention", ["Role", "People", "Still employed after"], found.staying.map((one) => [one.role, one.n ?? "fewer than 5", one.curve.map((at) => `${at.months} months ${percent.format(at.staying)}`).join(", ")])));
  place.append(note(words(found.caveats.join("; ")) + "."));
}

async function health(place, { ask }) {
  const found = await ask("projections");
  place.append(cards([["Last position", number.format(found.position)], ["Views behind", number.format(found.items.filter((one) => one.position < found.position).length)], ["Views stopped", number.format(found.items.filter((one) => one.stopped).length)]]));
  place.append(table("Views", ["View", "#Position", "#Lag", "Stopped"], found.items.map((one) => [one.view, one.position, cell(one.lag_seconds, `${number.format(Math.round(one.lag_seconds * 10) / 10)} s`), one.stopped ?? ""])));
}

/** For engineers of source systems: recorded events, rejections with reasons, and checks without effect. */
let source = "";
const EXAMPLE = { specversion: "1.0", id: "example-1", source: "crm", type: "resolution.interaction.opened.v1", time: "2026-01-01T10:00:00Z", data: { interaction_id: "I-1", customer_id: "C-1", channel: "phone" } };
async function integrations(place, { ask, act, me }) {
  const found = await ask("sources");
  place.append(table("Sources", ["Source", "#Events", "Last recorded"], found.items.map((one) => {
    const show = node("button", one.source, { type: "button", title: "Show the events of this source" });
    show.addEventListener("click", () => { source = one.source; form.querySelector("input").value = source; search(); });
    return [show, one.events, cell(one.last_recorded, time(one.last_recorded))];
  })));
  const form = node("form", [field("source", "source", { value: source }), node("button", "Show")], { class: "search", role: "search" });
  const list = node("div");
  const search = async () => {
    if (!source) return;
    try {
      const [recorded, rejected] = await Promise.all([ask("arrivals", { source }), ask("rejections", { source })]);
      list.replaceChildren(
        table("Recorded events, newest first", ["#Position", "Id", "Type", "Time", "Recorded"], recorded.items.map((one) => [one.position, one.event_id, one.type, cell(one.time, time(one.time)), cell(one.recorded, time(one.recorded))])),
        table("Rejected events, newest first", ["#Entry", "Code", "Field", "Remedy", "Time"], rejected.items.map((one) => [one.entry, one.code, one.field, one.message, cell(one.recorded, time(one.recorded))])));
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
