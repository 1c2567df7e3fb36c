// The sections of the page. Every chart has a table with its numbers. Data is inserted as text, never as markup.
const number = new Intl.NumberFormat();
const percent = new Intl.NumberFormat(undefined, { style: "percent", maximumFractionDigits: 1 });
const moment = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

const money = (value) => value == null ? ""
  : new Intl.NumberFormat(undefined, { style: "currency", currency: value.currency }).format(Number(value.amount));
const agentOf = (one) => one.agent_kind === "ai" ? `${one.agent_id} (AI)` : one.agent_id;
const time = (text) => text ? moment.format(new Date(text)) : "";
const hours = (value) => value == null ? "" : value >= 2 ? `${number.format(Math.round(value * 10) / 10)} h` : `${Math.round(value * 60)} min`;
const share = (one) => one?.share == null ? "none"
  : `${percent.format(one.share)} (${percent.format(one.interval[0])} to ${percent.format(one.interval[1])}, n = ${number.format(one.n)})`;
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
  const head = node("tr", columns.map((one, at) => node("th", one.replace("#", ""), { scope: "col", class: right[at] ? "number" : "" })));
  const body = rows.map((row) => node("tr", row.map((cell, at) =>
    node("td", cell instanceof Node ? cell : node("bdi", String(cell ?? "")), { class: right[at] ? "number" : "" }))));
  const made = node("table", [node("caption", `${caption} (${number.format(rows.length)})`), node("thead", head), node("tbody", body)]);
  return node("div", made, { class: "scroll", tabindex: "0", role: "region", "aria-label": caption });
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
const reasons = (answer) => (answer.reasons ?? []).map((one) => one.message).join("; ");

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

/** Pending escalations; a manager decides them here. */
async function pendingEscalations(place, { all, act, me, travelling }) {
  const { items } = await all("escalations", { status: "waiting" }, 200);
  if (!items.length) return;
  const mayDecide = me.role === "manager" && !travelling;
  place.append(table("Pending escalations", ["since", "agent", "kind", "reason", "#amount", ...(mayDecide ? ["decision"] : [])], items.map((one) => {
    const row = [time(one.requested), agentOf(one), one.kind, one.reason, money(one.asked)];
    if (one.reported_by) return [...row, ...(mayDecide ? [`handled in ${one.reported_by}`] : [])];
    if (mayDecide) row.push(commandForm(`Decide ${agentOf(one)}, ${one.kind}`, [field("decision", "operation", { options: ["approve", "deny", "forward"] }), field("lower amount", "amount", { inputmode: "decimal", size: 6, placeholder: one.asked.amount }), field("reason", "reason", { size: 12 })], "Send", async (values) => {
      const answer = await act(`escalations/${encodeURIComponent(one.escalation_id)}`, without(withMoney({ ...values, currency: one.asked.currency }), "currency"));
      return `${answer.status ?? answer.outcome}${reasons(answer) ? `: ${reasons(answer)}` : ""}`;
    }));
    return row;
  })));
}

/** An amount of each currency; amounts of different currencies are never added. */
const each = (items, name) => items.map((one) => money(one[name])).join(" · ");

/** The sums of amounts, one for each currency. */
function sums(items, name) {
  const found = {};
  for (const { [name]: { amount, currency } } of items) found[currency] = (found[currency] ?? 0) + Number(amount);
  return Object.keys(found).sort().map((currency) => money({ amount: found[currency], currency })).join(" · ");
}

/** A form that checks whether an action would be allowed, without taking it. */
function previewForm(me, act, currency) {
  const agent = me.role === "agent" ? [] : [field("agent", "agent_id", { required: "", value: me.person_id ?? "" })];
  return commandForm("Check an action", [...agent, field("kind", "kind", { options: KINDS }), field("amount", "amount", { inputmode: "decimal", size: 8 }), field("currency", "currency", { size: 4, value: currency }), field("customer", "customer_id", { size: 10 })], "Check", async (values) => {
    const answer = await act("preview", without(withMoney(values), "currency"));
    const most = answer.available ? `; up to ${money(answer.available)} available now` : "";
    return `${answer.outcome}${most}${reasons(answer) ? `: ${reasons(answer)}` : ""}`;
  });
}

async function overview(place, page) {
  const { ask, all, act, me, travelling } = page;
  const [gap, whole, current, actions] = await Promise.all([
    ask("gap").catch(() => null), travelling ? null : ask("summary"), travelling ? null : ask("summary", { from: new Date().toISOString() }), ask("actions", { limit: 12 })]);
  const budgets = current?.total.budgets ?? [];
  if (whole) {
    const { actions: given, interactions } = whole.total;
    place.append(cards([
      ["Actions", number.format(given.given), each(given.by_currency, "net")], ["Spent in current budgets", each(budgets, "spent") || "none"], ["Remaining", each(budgets, "remaining") || "none"],
      ["Resolved on first contact", interactions.first_contact.share == null ? "unknown" : percent.format(interactions.first_contact.share), `${share(interactions.first_contact)}, evidence level 1`]]));
  } else { // the summary has no past state, so all pages of that state are read
    const [done, open] = await Promise.all([all("actions", {}, Infinity), all("balances", { closed: false }, Infinity)]);
    place.append(cards([
      ["Actions", number.format(done.items.filter((one) => ["taken", "settled", "charged", "reversed"].includes(one.state)).length)],
      ["Spent in open budgets", sums(open.items, "spent") || "none"], ["Remaining", sums(open.items, "remaining") || "none"]]));
  }
  if (gap) {
    const overall = gap.overall;
    place.append(node("p", `${number.format(overall.asked)} escalations; approved as requested: ${share(overall.approved_anyway)} (evidence level 1); customers waited ${hours(overall.waiting.hours) || "0 h"}.`, { class: "summary", id: "escalated" }));
    const suggested = gap.recommended_limits.find((one) => one.limit);
    if (suggested) place.append(note(`Suggested limit: ${suggested.kind} up to ${money(suggested.limit)} for ${suggested.role}; an escalation costs ${money(suggested.cost_of_asking)}; approved up to there: ${share(suggested.approved)}. A hypothesis: it holds if people ask the same.`));
    if (gap.cannot_do.length) place.append(table("Remedies beyond authority", ["", "#times"], gap.cannot_do.slice(0, 8).map((one) => [one.text, number.format(one.asked + one.silent)])));
  }
  place.append(table("Latest actions", ["time", "agent", "kind", "reason", "#amount", "state"], actions.items.map((one) =>
    [time(one.time), agentOf(one), one.kind, one.reason, money(one.amount), one.state])));
  await pendingEscalations(place, page);
  if (!travelling && me.role !== "auditor") place.append(heading("Check an action"), previewForm(me, act, budgets[0]?.currency ?? "GBP"));
}

/** The remaining amount of a budget over the days, from the granted amount down. */
async function burnDown(place, one, all) {
  const found = await all("actions", { holder: one.holder, period: one.period, order: "asc" }, Infinity);
  const done = found.items.filter((act) => act.amount.currency === one.granted.currency && act.basis === "goodwill" && act.state !== "voided" && act.state !== "held");
  const granted = Number(one.granted.amount);
  if (!done.length || !granted) return place.replaceChildren(note("Nothing was spent from this budget yet."));
  let left = granted;
  const first = Date.parse(done[0].time);
  const steps = done.map((act) => { left -= Number(act.amount.amount); return { x: (Date.parse(act.time) - first) / 86_400_000, left: Math.max(0, left / granted), act }; });
  place.replaceChildren(
    curve(`Remaining budget of ${one.holder} in ${one.period}, over days; the table has the numbers`, [{ x: 0, left: 1 }, ...steps], ["left"]),
    table(`Spending of ${one.holder}`, ["time", "kind", "reason", "#amount", "#remaining"], steps.map((step) => [time(step.act.time), step.act.kind, step.act.reason, money(step.act.amount), percent.format(step.left)])));
}

async function budgets(place, { ask, all }) {
  const [found, ended] = await Promise.all([all("balances", { closed: false }, Infinity), ask("balances", { closed: true })]);
  const used = (one) => Number(one.granted.amount) > 0 ? Number(one.spent.amount) / Number(one.granted.amount) : 0;
  const burn = node("div", "", { role: "status" });
  const rows = found.items.sort((a, b) => used(b) - used(a)).map((one) => {
    const bar = node("meter", percent.format(used(one)), { min: 0, max: 1, high: 0.8, value: Math.min(1, used(one)), "aria-label": `${one.holder}: ${percent.format(used(one))} spent` });
    const burning = node("button", one.holder, { type: "button", title: "Show the remaining amount over time" });
    burning.addEventListener("click", () => burnDown(burn, one, all));
    return [one.holder.startsWith("agent:") ? burning : one.holder, one.period, bar, percent.format(used(one)), money(one.granted), money(one.spent), money(one.reserved), money(one.remaining)];
  });
  place.append(note("Open budgets, those with the highest share spent first."), table("Budgets", ["holder", "period", "spent", "#", "#granted", "#spent", "#reserved", "#remaining"], rows), burn);
  const closed = ended.items;
  if (closed.length) place.append(note(ended.next ? "The first closed budgets; the file has all." : ""), node("p", node("a", "All budgets as CSV", { href: "/api/v1/balances?format=csv", download: "" })), table("Closed", ["holder", "period", "#granted", "#spent"], closed.map((one) => [one.holder, one.period, money(one.granted), money(one.spent)])));
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

/** A form that tries another limit: in shadow mode, or as a trial on randomly chosen teams. */
function limitForm(one, me, act) {
  const modes = me.role === "operator" ? ["shadow", "trial"] : ["shadow"];
  const amount = one.limit ?? one.today;
  return commandForm(`Try another limit, ${one.kind} for ${one.role}`, [field("mode", "mode", { options: modes }), field("limit", "amount", { required: "", inputmode: "decimal", size: 8, value: amount?.amount ?? "" })], "Start", async (values) => {
    const answer = await act("policies", { mode: values.mode, role: one.role, kind: one.kind, amount: { amount: values.amount, currency: one.currency } });
    return `${values.mode} started, version ${answer.policy_version}; see \`report what-if --shadow\``;
  });
}

async function gap(place, { ask, act, me, travelling }) {
  const found = await ask("gap");
  const wait = found.overall.waiting;
  place.append(cards([["Escalations", number.format(found.overall.asked)], ["Approved as requested", share(found.overall.approved_anyway)], ["Median wait", hours(wait.median_hours) || "none"], ["Abandoned", number.format(wait.abandoned)]]));
  place.append(table("Remedies beyond authority", ["", "#times"], found.cannot_do.map((one) => [one.text, number.format(one.asked + one.silent)])));
  for (const one of found.recommended_limits) {
    place.append(heading(`${one.kind} for ${one.role}`));
    place.append(note(one.limit ? `Recommended: ${money(one.limit)}${one.today ? `, today ${money(one.today)}` : ""}. An escalation costs ${money(one.cost_of_asking)}; ${one.why}.` : `No recommendation: ${one.why}.`));
    if (one.curve.length > 1) place.append(curve(`Approved by amount, ${one.kind} for ${one.role}; the table has the numbers`, one.curve.map((at) => ({ x: Number(at.up_to.amount), smoothed: at.smoothed, lower: at.lower })), ["smoothed", "lower"]));
    if (!travelling && me.role !== "auditor") place.append(limitForm(one, me, act));
    if (one.curve.length) place.append(table("Approved, by amount", ["#up to", "#decided", "#approved", "#at least (95 %)"], one.curve.map((at) => [money(at.up_to), number.format(at.n), percent.format(at.smoothed), percent.format(at.lower)])));
  }
  if (found.procedure.length) place.append(table("Cost of procedure", ["kind", "#decided at once", "#cost", "#estimated cost of asking"], found.procedure.map((one) => [one.kind, number.format(one.n), money(one.given), money(one.long_way) || "unknown"])));
  place.append(note(found.caveats.join("; ") + "."));
}

async function flags(place, { all, act, me, travelling }) {
  const [found, cases] = [await all("flags"), await all("cases")];
  const ofCase = (status) => cases.items.filter((one) => one.status === status).sort((one, other) => one.rank - other.rank)
    .map((one) => [time(one.opened ?? one.found), one.subject, one.rules.join(", "), money(one.expected_loss) || "", one.explanation]);
  const columns = ["since", "subject", "rules", "#expected loss", "look at"];
  place.append(table("Open cases", columns, ofCase("open")), table("Cases below the line", columns, ofCase("below")));
  const mayReview = ["manager", "operator"].includes(me.role) && !travelling;
  place.append(note("A flag asks for a human review; it is no verdict."));
  place.append(table("Flags", ["raised", "rule", "about", "explanation", "status", "evidence", ...(mayReview ? ["review"] : [])], found.items.map((one) => {
    const row = [time(one.raised), one.rule, one.about.join(", "), one.explanation, one.status, (one.evidence ?? []).slice(0, 12).join(", ")];
    if (mayReview) row.push(one.status !== "open" ? one.note ?? "" : commandForm(`Review ${one.flag_id}`, [field("verdict", "verdict", { options: ["", "dismissed", "coached", "confirmed"] }), field("note", "note", { size: 14 })], "Send", async (values) => {
      const answer = await act(`flags/${encodeURIComponent(one.flag_id)}`, values);
      return values.verdict ? `${answer.outcome}: ${values.verdict}` : "review started; names are shown";
    }));
    return row;
  })));
}

let filter = { agent: "", customer: "", interaction: "", action: "" };

/** The explanation of an action, with its proof and case file if the role allows them. */
async function explanation(place, action, { ask, me }) {
  const found = await ask(`explain/${encodeURIComponent(action)}`);
  const mayProve = ["auditor", "operator"].includes(me.role);
  const link = (href, text) => node("a", text, { href, download: "" });
  const steps = (found.escalation ?? []).map((one) => [one.position, time(one.time), one.what, one.decided_by ?? "", one.waited_seconds == null ? "" : hours(one.waited_seconds / 3600)]);
  place.replaceChildren(
    heading(`Action ${action}`), table("Why it was allowed", ["topic", "explanation"], found.story.map((line) => [line.what, line.said])),
    ...(steps.length ? [table("Escalation", ["#position", "time", "step", "by", "#waited"], steps)] : []),
    table("Later events", ["#position", "time", "actor", "event"], found.after.map((one) => [one.position, time(one.time), one.who, one.what])),
    ...(mayProve ? [node("p", [link(`/api/v1/case/${encodeURIComponent(action)}`, "Case file"), " · ", link(`/api/v1/proof/${found.position}`, "Proof")])] : []));
  place.scrollIntoView({ block: "nearest" });
}

async function auditTrail(place, page) {
  const { all } = page;
  const fields = Object.keys(filter).map((name) => node("label", [name, node("input", "", { name, value: filter[name] })]));
  const form = node("form", [...fields, node("button", "Search")], { class: "search", role: "search" });
  const list = node("div");
  const details = node("div", "", { role: "status" });
  const search = async () => {
    try {
      const found = await all("trail", { ...filter, order: filter.interaction || filter.action ? "asc" : "desc" }, 500);
      list.replaceChildren(table("Events", ["#position", "time", "actor", "concerning", "interaction", "event", "explanation"], found.items.map((one) => {
        const story = node("button", one.interaction_id ?? "", { type: "button", title: "Show only this interaction" });
        story.addEventListener("click", () => { filter = { agent: "", customer: "", interaction: one.interaction_id, action: "" }; for (const input of form.querySelectorAll("input")) input.value = filter[input.name]; search(); });
        const explain = node("button", "Explain", { type: "button", title: `Explain ${one.action_id}` });
        explain.addEventListener("click", async () => { try { await explanation(details, one.action_id, page); } catch (problem) { details.replaceChildren(node("p", problem.message, { role: "alert" })); } });
        return [one.position, time(one.time), one.who, one.whom, one.interaction_id ? story : "", one.what, one.action_id ? explain : ""];
      })));
    } catch (problem) { list.replaceChildren(node("p", problem.message, { role: "alert" })); }
  };
  form.addEventListener("submit", (event) => { event.preventDefault(); filter = Object.fromEntries(new FormData(form)); search(); });
  place.append(form, details, list);
  await search();
}

async function recognition(place, { ask }) {
  const found = await ask("recognition");
  place.append(note(`${number.format(found.thanks.given)} thanks to ${number.format(found.thanks.people_thanked)} people. People are not ranked.`));
  if (found.training.length) place.append(table("Training", ["course", "#people", "opens", "#used in 90 days before", "#after"], found.training.map((one) => [one.course, one.people, one.opens.join(", "), one.used_before, one.used_after])));
  if (found.careers.length) place.append(table("Careers", ["from", "to", "#people", "#gave in 90 days before", "#after"], found.careers.map((one) => [one.from, one.to, one.people ?? "fewer than 5", one.used_before, one.used_after])));
  if (found.voices.length) place.append(table("Ideas and obstacles", ["", "#reported", "#answered", "#median days to the answer"], found.voices.map((one) => [one.what, one.said, one.answered, one.median_days_to_answer == null ? "" : number.format(one.median_days_to_answer)])));
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

const above = ["manager", "auditor", "operator"];
export const SECTIONS = {
  overview: { title: "Overview", fill: overview }, budgets: { title: "Budgets", fill: budgets },
  value: { title: "Customer value", fill: customerValue, roles: above }, gap: { title: "Authority gap", fill: gap, roles: above },
  flags: { title: "Flags", fill: flags }, trail: { title: "Audit trail", fill: auditTrail },
  recognition: { title: "Recognition", fill: recognition, roles: above }, health: { title: "Health", fill: health },
  integrations: { title: "Integrations", fill: integrations, roles: ["auditor", "operator"] },
};
