// Today: what waits for a team lead, oldest first, with all that a decision rests on; decided with one key.
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { goodwillBy } from "../currencies";
import { decide, refresh, useRead, useWhole } from "../api";
import type { UnusedAuthority } from "../api";
import { Dates, Field, isTyping, useRange } from "../components/controls";
import { Card, Empty, Figure, Figures, Meter, Pending, State, Top } from "../components/parts";
import { Person } from "../components/person";
import { Table } from "../components/table";
import { amounts, day, duration, hoursInterval, money, number, percent, period, since, time, words } from "../format";
import type { Balance, Divided, Escalation, EscalationCase, Summary, Viewer } from "../types";
import { change, link, usePlace } from "../url";
import { approved, budgetsIn, goodwillChange, onTheSpot, useNewest } from "./overview";
import { Thank, Voices } from "./replies";

type Step = "approve" | "lower" | "deny" | "forward";
const KEYS: Record<string, Step> = { a: "approve", l: "lower", d: "deny", f: "forward" };

/** The escalations that wait for this reader, the oldest first. */
export function useWaiting(me: Viewer): { items: Escalation[] | null; problem: string | null } {
  const { items, loaded, problem } = useWhole<Escalation>("escalations", { status: "waiting", order: "asc" });
  const mine = me.person_id;
  return { items: loaded ? items.filter((one) => !mine || me.role !== "manager" || one.asked_of?.includes(mine)) : null, problem };
}

export function Today({ me, say }: { me: Viewer; say: (text: string) => void }) {
  const { items, problem } = useWaiting(me);
  const { query } = usePlace();
  const [first] = items ?? [];
  const chosen = items?.find((one) => one.escalation_id === query.escalation) ?? first;
  const choose = (one: Escalation | undefined): void => { if (one) change({ escalation: one.escalation_id }); };
  const move = (by: number): void => {
    if (items && chosen) choose(items[Math.max(0, Math.min(items.length - 1, items.indexOf(chosen) + by))]);
  };
  useEffect(() => {
    const pressed = (event: KeyboardEvent): void => {
      if (isTyping(event)) return;
      if (event.key === "j") move(1);
      if (event.key === "k") move(-1);
    };
    addEventListener("keydown", pressed);
    return () => removeEventListener("keydown", pressed);
  });
  const team = <Team key="team" me={me} />;
  return (
    <>
      <Top title="Today">{items && first ? `${number(items.length)} ${items.length === 1 ? "escalation waits" : "escalations wait"} for you; the oldest was asked ${since(first.requested)}.` : ""}</Top>
      {!items ? <Pending problem={problem} /> : !chosen ? (
        <Empty title="Nothing waits for you.">New escalations of your people appear here at once. <a href={link("escalations")}>Past decisions</a> are in the list of escalations.</Empty>
      ) : (
        <div class="queue">
          <ol aria-label="Waiting escalations">
            {items.slice(0, 30).map((one) => (
              <li key={one.escalation_id}>
                <button type="button" aria-current={one === chosen ? "true" : undefined} onClick={() => choose(one)}>
                  <strong>{money(one.asked)}</strong><small>{since(one.requested)}</small>
                  <span>{words(one.kind)}</span><small><Person id={one.agent_id} /></small>
                </button>
              </li>
            ))}
          </ol>
          <Waiting key={chosen.escalation_id} one={chosen} me={me} say={say} />
        </div>
      )}
      {items && !chosen && team}
      <div class="two" key="voices"><Voices me={me} say={say} /><Thank me={me} say={say} /></div>
      {items && chosen && team}
      <Unused />
    </>
  );
}

/** An escalation with its limits, the customer's story, and cases alike. */
function Waiting({ one, me, say }: { one: Escalation; me: Viewer; say: (text: string) => void }) {
  const { data, problem } = useRead<EscalationCase>(`escalations/${encodeURIComponent(one.escalation_id)}`);
  return (
    <article class="card" aria-label="Escalation">
      <header><h2>{words(one.kind)} of {money(one.asked)}</h2><span class="muted">{one.due && `due ${since(one.due)}`}</span></header>
      <dl class="facts">
        <dt>Reason</dt><dd><bdi class="long">{one.reason}</bdi></dd>
        <dt>Asked by</dt><dd><Person id={one.agent_id} ai={one.agent_kind === "ai"} />{one.team_id ? `, ${one.team_id}` : ""}, {time(one.requested)}</dd>
        <dt>Customer</dt><dd>{one.customer_id ? <a href={link("actions", { customer: one.customer_id })}>{one.customer_id}</a> : "not named"}</dd>
        <dt>Interaction</dt><dd>{one.interaction_id ?? "not named"}</dd>
        {data && <><dt>Limits met</dt><dd>{data.limits.length ? data.limits.map((limit) => (
          <div key={limit.rule}>{limit.message}{limit.limit ? `: ${money(limit.limit)}${limit.used && Number(limit.used.amount) ? `, ${money(limit.used)} used` : ""}` : ""}</div>
        )) : "none recorded"}</dd></>}
        {data && <><dt>Cases alike</dt><dd>{data.alike_decided.n ? `${number(data.alike_decided.k)} of ${number(data.alike_decided.n)} approved (${words(one.kind).toLowerCase()}, same reason)` : "none decided yet"}</dd></>}
      </dl>
      {!data ? <Pending problem={problem} /> : <Brief data={data} />}
      {me.role === "manager" && <Decide key={one.escalation_id} one={one} say={say} />}
    </article>
  );
}

function Brief({ data }: { data: EscalationCase }) {
  const asked = Date.parse(data.escalation.requested);
  const story = data.story.filter((line) => Date.parse(line.time) !== asked); // the request itself stands above
  return (
    <div class="two">
      <div>
        <h3>Brief</h3>
        {story.length ? (
          <ol class="story">{story.slice(-6).map((line) => <li key={line.position}><time dateTime={line.time}>{time(line.time)}</time>{line.what}</li>)}</ol>
        ) : <p class="muted">The log has no story of this interaction.</p>}
        {data.waiting.length > 0 && <p class="note">{number(data.waiting.length)} more escalations of this customer wait.</p>}
      </div>
      <div>
        <h3>Given to this customer</h3>
        {data.actions.length ? (
          <ol class="story">{data.actions.slice(0, 4).map((line) => <li key={line.action_id}><time dateTime={line.time}>{time(line.time)}</time>{words(line.kind)}, {money(line.amount)} <State name={line.state} /></li>)}</ol>
        ) : <p class="muted">Nothing yet.</p>}
        <h3>Decided alike</h3>
        {data.alike.length ? (
          <ol class="story">{data.alike.slice(0, 4).map((line) => <li key={line.escalation_id}>{money(line.asked)} <State name={line.status} />{line.status === "approved" && line.amount?.amount !== line.asked.amount ? ` with ${money(line.amount)}` : ""}</li>)}</ol>
        ) : <p class="muted">No case of this kind and reason was decided yet.</p>}
      </div>
    </div>
  );
}

/** The four decisions. A and a click approve; the others ask for one field first. */
function Decide({ one, say }: { one: Escalation; say: (text: string) => void }) {
  const [step, setStep] = useState<Step | null>(null);
  const [text, setText] = useState("");
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState<string | null>(null);
  const field = useRef<HTMLInputElement>(null);
  const send = async (now: Step, value: string): Promise<void> => {
    if (busy) return;
    setBusy(true);
    setProblem(null);
    try {
      const amount = { amount: value.trim(), currency: one.asked.currency };
      const answer = await decide(one.escalation_id, now === "approve" ? { operation: "approve" } : now === "lower" ? { operation: "approve", amount }
        : now === "deny" ? { operation: "deny", ...(value.trim() ? { reason: value.trim() } : {}) } : { operation: "forward", ...(value.trim() ? { to: value.trim() } : {}) });
      const reasons = (answer.reasons ?? []).map((reason) => reason.message).join("; ");
      if (answer.outcome !== "done" && answer.outcome !== "taken") throw new Error(reasons || answer.outcome);
      say(`${words(one.kind)} of ${money(one.asked)}: ${now === "lower" ? `approved with ${money(amount)}` : answer.status ?? now}.`);
      refresh("escalations", "summary", "balances");
    } catch (failed) {
      setProblem((failed as Error).message);
    }
    setBusy(false);
  };
  const begin = (now: Step): void => {
    if (now === "approve") { void send(now, ""); return; }
    setStep(now);
    setText("");
  };
  useLayoutEffect(() => { if (step) field.current?.focus(); }, [step]); // before the next key arrives
  useEffect(() => {
    const pressed = (event: KeyboardEvent): void => {
      const now = KEYS[event.key];
      if (!now || isTyping(event)) return;
      event.preventDefault();
      begin(now);
    };
    addEventListener("keydown", pressed);
    return () => removeEventListener("keydown", pressed);
  });
  const label = step === "lower" ? `Amount in ${one.asked.currency}` : step === "deny" ? "Reason for the agent" : "Forward to (empty: one level up)";
  return (
    <div class="decide">
      <div class="tools">
        <button type="button" class="first" aria-disabled={busy} onClick={() => begin("approve")}>Approve {money(one.asked)} <kbd>A</kbd></button>
        <button type="button" aria-expanded={step === "lower"} onClick={() => begin("lower")}>Lower <kbd>L</kbd></button>
        <button type="button" aria-expanded={step === "deny"} onClick={() => begin("deny")}>Deny <kbd>D</kbd></button>
        <button type="button" aria-expanded={step === "forward"} onClick={() => begin("forward")}>Forward <kbd>F</kbd></button>
        <span class="muted">next <kbd>J</kbd> previous <kbd>K</kbd></span>
      </div>
      {step && (
        <form class="row" onSubmit={(event) => { event.preventDefault(); void send(step, text); }}>
          <Field label={label}><input ref={field} value={text} required={step === "lower"} inputMode={step === "lower" ? "decimal" : "text"} onInput={(event) => setText(event.currentTarget.value)}
            onKeyDown={(event) => { if (event.key === "Escape") setStep(null); }} /></Field>
          <button class="first">{step === "lower" ? "Approve this amount" : words(step)}</button>
          <button type="button" onClick={() => setStep(null)}>Cancel</button>
        </form>
      )}
      {problem && <p class="alert" role="alert">{problem}</p>}
    </div>
  );
}

/** The team: what it gave, and the state of each budget. */
function Team({ me }: { me: Viewer }) {
  const newest = useNewest(me, true);
  const range = useRange(newest);
  const { data, problem } = useRead<Summary>("summary", { ...range, by: "agent" });
  const weeks = useRead<Summary>("summary", { ...range, by: "week" });
  const budgets = useWhole<Balance>("balances", { closed: false });
  const of = ({ group }: Divided): Balance[] => budgets.items.filter((one) => one.holder === `agent:${group}`);
  const used = (one: Balance): number => (Number(one.granted.amount) ? Number(one.spent.amount) / Number(one.granted.amount) : 0);
  if (!data) return <Card title="Your team"><Pending problem={problem} /></Card>;
  const { total } = data;
  const funds = budgetsIn(total);
  const waited = total.escalations.hours_waited;
  return (
    <>
      <header class="top"><h2>Your team</h2><Dates {...range} zone={data.time_zone} newest={newest} /></header>
      <Figures>
        <Figure label="Goodwill" term="goodwill" value={amounts(goodwillBy(total).map((one) => one.goodwill))} href={link("actions", { ...range, given: "true" })}
          change={goodwillChange(total)} more={`${number(total.actions.given)} actions`} />
        <Figure label="Budgets spent" term="budget" value={funds.map((one) => percent(one.spent_share)).join(" · ") || "–"} href={link("budgets")}
          more={funds.map((one) => `${money(one.spent)} of ${money(one.granted)}`).join(" · ") || "none opened"} />
        <Figure label="On the spot" term="on the spot" value={percent(onTheSpot(total))} more={onTheSpot(total.before) == null ? "without approval" : `${percent(onTheSpot(total.before))} before`} />
        <Figure label="Escalations" term="escalation" value={number(total.escalations.requested)} href={link("escalations", range)}
          more={waited.median == null ? approved(total) : `${approved(total)}, median wait ${duration(waited.median * 3600)} (${hoursInterval(waited.median_interval, waited.n)})`} />
      </Figures>
      {weeks.data ? <Weeks summary={weeks.data} range={range} /> : <Card title="Goodwill by week"><Pending problem={weeks.problem} /></Card>}
      <Card title="People">
        <Table caption="People" hideCaption rows={data.groups} perPage={10} empty={<Empty title="No actions in these days.">Choose other days, or tell your people what they may give.</Empty>} columns={[
          { title: "Person", value: (one) => one.group, cell: (one) => <a href={link("trail", { agent: one.group })}><Person id={one.group} /></a> },
          { title: "Actions", value: (one) => one.actions.given, right: true, cell: (one) => <a href={link("actions", { ...range, agent: one.group, given: "true" })}>{number(one.actions.given)}</a> },
          { title: "Goodwill", value: (one) => Number(goodwillBy(one)[0]?.goodwill.amount ?? 0), right: true, cell: (one) => amounts(goodwillBy(one).map((at) => at.goodwill)) },
          { title: "Escalated", value: (one) => one.escalations.requested, right: true },
          { title: "Budget spent", value: (one) => Math.max(0, ...of(one).map(used)), right: true, cell: (one) => of(one).map((at) => <div key={at.period + at.granted.currency}><Meter share={used(at)} label={`${percent(used(at))} spent`} /> <span class="share">{percent(used(at))}</span></div>) },
          { title: "Left", value: (one) => Number(of(one)[0]?.remaining.amount ?? 0), right: true, cell: (one) => amounts(of(one).map((at) => at.remaining)) },
        ]} />
      </Card>
    </>
  );
}

/** Employees with less than a tenth of their budget spent in a period, by the kinds of action that they may take. */
function Unused() {
  const { query } = usePlace();
  const { data, problem } = useRead<UnusedAuthority>("unused-authority", { period: query.unused_in });
  if (!data) return <Card title="Unused authority"><Pending problem={problem} /></Card>;
  const people = new Set(data.items.map((one) => one.employee_id)).size;
  return (
    <Card title="Unused authority" term="unused authority" tools={<label>Period <select value={data.period ?? ""} onChange={(event) => change({ unused_in: event.currentTarget.value })}>
      {data.periods.map((one) => <option key={one} value={one}>{period(one)}</option>)}</select></label>}>
      <p class="note">{number(people)} of {number(data.employees)} employees spent less than a tenth of their budget.</p>
      <Table caption="Unused authority" hideCaption rows={data.items} perPage={10} empty={<Empty title="No employee left the budget unused.">Counted are employees with 10 contacts or more.</Empty>} columns={[
        { title: "Person", value: (one) => one.employee_id, cell: (one) => <a href={link("actions", { agent: one.employee_id, from: null, to: null })}><Person id={one.employee_id} /></a> },
        { title: "Kind", value: (one) => words(one.kind) },
        { title: "Limit", value: (one) => (one.limit ? Number(one.limit.amount) : null), right: true, cell: (one) => (one.limit ? money(one.limit) : "unlimited") },
        { title: "Used", value: (one) => Number(one.used.amount), right: true, cell: (one) => money(one.used) },
        { title: "Last use", value: (one) => one.last_used, cell: (one) => time(one.last_used) || "never" },
        { title: "Budget spent", value: (one) => Number(one.spent.amount) / Number(one.granted.amount), right: true, cell: (one) => `${money(one.spent)} of ${money(one.granted)}` },
        { title: "Actions", value: (one) => one.actions, right: true, extra: true }, { title: "Role", value: (one) => one.role, extra: true },
        { title: "Contacts", value: (one) => one.contacts, right: true, extra: true },
      ]} />
    </Card>
  );
}

/** The first and the last day of a week such as `2026-W47`, within a range of days. */
function daysOf(week: string, { from, to }: { from: string; to: string }): { from: string; to: string } {
  const [year = 0, count = 0] = week.split("-W").map(Number);
  const first = new Date(Date.UTC(year, 0, 4)); // the fourth of January is in the first week
  first.setUTCDate(4 - (first.getUTCDay() || 7) + 1 + (count - 1) * 7);
  const last = new Date(first.getTime() + 6 * 86_400_000);
  const [begin, end] = [first, last].map((at) => at.toISOString().slice(0, 10)) as [string, string];
  return { from: begin > from ? begin : from, to: end < to ? end : to };
}

const daysInWords = ({ from, to }: { from: string; to: string }): string => (from === to ? day(from) : `${day(from)} to ${day(to)}`);

/** What the team gave by week, the newest first. */
function Weeks({ summary, range }: { summary: Summary; range: { from: string; to: string } }) {
  const [currency] = goodwillBy(summary.total);
  const of = (one: Divided): number => Number(one.actions.by_currency.find((at) => at.currency === currency?.currency)?.goodwill.amount ?? 0);
  const most = Math.max(...summary.groups.map(of)) || 1;
  return (
    <Card title="Goodwill by week" term="goodwill">
      <Table caption="Goodwill by week" hideCaption rows={[...summary.groups].reverse()} perPage={6} empty={<Empty title="No actions in these days.">Choose other days.</Empty>} columns={[
        { title: "Week", value: (one) => one.group, cell: (one) => <a href={link("actions", { ...daysOf(one.group, range), given: "true" })}>{daysInWords(daysOf(one.group, range))}</a> },
        { title: "Actions", value: (one) => one.actions.given, right: true },
        { title: "Goodwill", value: of, right: true, cell: (one) => <><Meter share={of(one) / most} label={`${percent(of(one) / most)} of the highest week`} /> {amounts(goodwillBy(one).map((at) => at.goodwill))}</> },
        { title: "Escalated", value: (one) => one.escalations.requested, right: true },
      ]} />
    </Card>
  );
}
