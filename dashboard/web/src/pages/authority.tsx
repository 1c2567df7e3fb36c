// My authority: what an agent may give now, and what became of what they asked.
import { useState } from "preact/hooks";
import { act, refresh, useRead } from "../api";
import type { AuthorityNow, ThanksRow } from "../api";
import { Field, KINDS } from "../components/controls";
import { Card, Empty, Figure, Figures, Meter, Pending, State, Top } from "../components/parts";
import { Person } from "../components/person";
import { Table } from "../components/table";
import { day, money, number, percent, period, time, words } from "../format";
import type { Action, Balance, Escalation, Flag, Items, Money, Viewer } from "../types";
import { link } from "../url";

interface Previewed { outcome: string; available?: Money | null; reasons?: { message: string; limit?: Money }[] }
const OUTCOMES: Record<string, string> = { taken: "Yes, you may.", escalate: "This needs an approval.", refused: "No." };

export function MayI({ me }: { me: Viewer }) {
  const [fields, set] = useState({ kind: "refund", amount: "", customer_id: "", agent_id: me.person_id ?? "" });
  const [answer, setAnswer] = useState<Previewed | null>(null);
  const [problem, setProblem] = useState<string | null>(null);
  const { data } = useRead<Items<Balance>>("balances", { limit: 1 });
  const currency = data?.items[0]?.granted.currency ?? "GBP";
  const send = async (): Promise<void> => {
    try {
      const { amount, ...others } = fields;
      const given = Object.fromEntries(Object.entries(others).filter(([, value]) => value));
      setAnswer(await act<Previewed>("preview", { ...given, ...(amount ? { amount: { amount, currency } } : {}) }));
      setProblem(null);
    } catch (failed) { setProblem((failed as Error).message); setAnswer(null); }
  };
  const input = (name: keyof typeof fields, label: string, more: object = {}) => (
    <Field label={label}><input value={fields[name]} size={10} {...more} onInput={(event) => set({ ...fields, [name]: event.currentTarget.value })} /></Field>
  );
  return (
    <Card title="May I?">
      <form class="row" aria-label="Check an action" onSubmit={(event) => { event.preventDefault(); void send(); }}>
        {me.role !== "agent" && input("agent_id", "Agent", { required: true })}
        <Field label="Kind"><select value={fields.kind} onChange={(event) => set({ ...fields, kind: event.currentTarget.value })}>{KINDS.map((one) => <option key={one} value={one}>{words(one)}</option>)}</select></Field>
        {input("amount", `Amount in ${currency}`, { inputMode: "decimal" })}
        {input("customer_id", "Customer")}
        <button class="first">Check</button>
      </form>
      <div role="status">
        {answer && <p><strong>{OUTCOMES[answer.outcome] ?? answer.outcome}</strong> {answer.available ? `Up to ${money(answer.available)} now. ` : ""}{(answer.reasons ?? []).map((one) => `${words(one.message)}${one.limit ? ` (${money(one.limit)})` : ""}.`).join(" ")}</p>}
        {problem && <p class="alert">{problem}</p>}
      </div>
    </Card>
  );
}

/** The limit of each kind, and what the budget leaves of it. */
function ByKind() {
  const { data, problem } = useRead<AuthorityNow>("authority");
  if (!data) return <Card title="What I may give now"><Pending problem={problem} /></Card>;
  const last = data.until && new Date(Date.parse(data.until) - 1).toISOString();
  const limits = [
    last && `until ${day(last, data.time_zone ?? "UTC")}`,
    data.per_interaction && `at most ${money(data.per_interaction)} on one interaction`,
    data.per_customer && `${money(data.per_customer.amount)} for one customer in ${data.per_customer.days} days, from all colleagues together`,
  ].filter(Boolean).join("; ");
  return (
    <Card title="What I may give now" term="authority">
      <Table caption="What I may give now" hideCaption rows={data.items} empty={<Empty title="Your role gives nothing yet.">Ask your team lead which role you have.</Empty>} columns={[
        { title: "Kind", value: (one) => words(one.kind) },
        { title: "Limit of one action", value: (one) => (one.limit ? Number(one.limit.amount) : "no limit"), right: true, cell: (one) => (one.limit ? money(one.limit) : "no limit") },
        { title: "Now without asking", value: (one) => (one.needs.length ? 0 : Number(one.left.amount)), right: true, cell: (one) => (one.needs.length ? "needs an approval" : `up to ${money(one.left)}`) },
        ...(data.items.some((one) => one.needs.length) ? [{ title: "Course to take", value: (one: AuthorityNow["items"][number]) => one.needs.join(", ") }] : []),
      ]} />
      {limits && <p class="note">{words(limits)}.</p>}
    </Card>
  );
}

/** The thanks that a person got. */
function ThanksToMe({ me }: { me: Viewer }) {
  const { data, problem } = useRead<Items<ThanksRow>>("thanks", { agent: me.person_id, limit: 50 });
  return (
    <Card title="Thanks to me">
      {!data ? <Pending problem={problem} /> : <Table caption="Thanks to me" hideCaption rows={data.items} perPage={5} empty={<Empty title="No thanks are recorded yet.">Customers, colleagues and managers can thank you.</Empty>} columns={[
        { title: "Time", value: (one) => one.time, cell: (one) => time(one.time) }, { title: "For", value: (one) => words(one.reason) },
        { title: "From", value: (one) => one.giver_id, cell: (one) => (one.giver_kind === "customer" ? `customer ${one.giver_id}` : <Person id={one.giver_id} />) },
        { title: "Interaction", value: (one) => one.interaction_id, cell: (one) => one.interaction_id && <a href={link("trail", { interaction: one.interaction_id })}>{one.interaction_id}</a> },
      ]} />}
    </Card>
  );
}

/** The flags about a person, each with their answer or a form for it. */
function FlagsAboutMe({ flags }: { flags: Flag[] }) {
  const [open, setOpen] = useState<string | null>(null);
  const [text, setText] = useState("");
  const [problem, setProblem] = useState<string | null>(null);
  const send = async (id: string): Promise<void> => {
    try {
      await act(`flags/${encodeURIComponent(id)}/answers`, { text });
      setOpen(null); setText(""); setProblem(null);
      setTimeout(() => refresh("flags"), 300); // the view reads the answer a moment later
    } catch (failed) { setProblem((failed as Error).message); }
  };
  return (
    <Card title="Flags about me" term="flag">
      <ol class="story" aria-label="Flags about me">
        {flags.map((one) => (
          <li key={one.flag_id}>
            <span class="muted">{time(one.raised)} <State name={one.status} /></span>
            <bdi>{one.explanation}</bdi>
            {one.answer ? <p><strong>Your answer</strong>: <bdi>{one.answer}</bdi></p> : open === one.flag_id ? (
              <form class="row" onSubmit={(event) => { event.preventDefault(); void send(one.flag_id); }}>
                <Field label="Your answer"><input value={text} required ref={(field) => field?.focus()} onInput={(event) => setText(event.currentTarget.value)}
                  onKeyDown={(event) => { if (event.key === "Escape") setOpen(null); }} /></Field>
                <button class="first">Send</button><button type="button" onClick={() => setOpen(null)}>Cancel</button>
              </form>
            ) : <button type="button" onClick={() => { setOpen(one.flag_id); setText(""); }}>Answer</button>}
          </li>
        ))}
      </ol>
      {problem && <p class="alert" role="alert">{problem}</p>}
    </Card>
  );
}

export function Authority({ me }: { me: Viewer }) {
  const budgets = useRead<Items<Balance>>("balances", { closed: false });
  const asked = useRead<Items<Escalation>>("escalations", { limit: 50 });
  const waits = useRead<Items<Escalation>>("escalations", { status: "waiting", count: true, limit: 1 });
  const given = useRead<Items<Action>>("actions", { limit: 50 });
  const flags = useRead<Items<Flag>>("flags", { limit: 50 });
  return (
    <>
      <Top title="My authority">What you may give now, and what became of what you asked.</Top>
      {!budgets.data ? <Pending problem={budgets.problem} /> : budgets.data.items.length ? (
        <Figures>{budgets.data.items.map((one) => <Figure key={one.period + one.granted.currency} label={`Left in ${period(one.period)}`} term="budget" value={money(one.remaining)}
          more={<><Meter share={Number(one.granted.amount) ? Number(one.remaining.amount) / Number(one.granted.amount) : 0} label="share left" /> of {money(one.granted)}, {percent(Number(one.granted.amount) ? Number(one.spent.amount) / Number(one.granted.amount) : 0)} spent</>} />)}
          {waits.data && <Figure label="Waiting for a decision" term="escalation" value={number(waits.data.total ?? 0)} href={link("escalations", { status: "waiting" })} more="of your escalations" />}</Figures>
      ) : <Empty title="Your budget opens with your first action.">Check below what you may give.</Empty>}
      <MayI me={me} />
      <ByKind />
      <Card title="My escalations" term="escalation">
        {!asked.data ? <Pending problem={asked.problem} /> : <Table caption="My escalations" hideCaption rows={asked.data.items} perPage={5} empty={<Empty title="You asked for nothing yet.">An action beyond your limits can be escalated.</Empty>} columns={[
          { title: "Requested", value: (one) => one.requested, cell: (one) => time(one.requested) }, { title: "Kind", value: (one) => words(one.kind) },
          { title: "Asked", value: (one) => Number(one.asked.amount), cell: (one) => money(one.asked), right: true },
          { title: "Outcome", value: (one) => one.status, cell: (one) => <State name={one.status} /> }, { title: "By", value: (one) => one.decided_by, cell: (one) => one.decided_by && <Person id={one.decided_by} /> },
        ]} />}
      </Card>
      <Card title="My actions" term="action">
        {!given.data ? <Pending problem={given.problem} /> : <Table caption="My actions" hideCaption rows={given.data.items} perPage={5} empty={<Empty title="You gave nothing yet.">Use the authority that you have.</Empty>} columns={[
          { title: "Time", value: (one) => one.time, cell: (one) => time(one.time) }, { title: "Kind", value: (one) => words(one.kind) }, { title: "Customer", value: (one) => one.customer_id },
          { title: "Amount", value: (one) => Number(one.amount.amount), cell: (one) => money(one.amount), right: true }, { title: "State", value: (one) => one.state, cell: (one) => <State name={one.state} /> },
        ]} />}
      </Card>
      {flags.data && flags.data.items.length > 0 && <FlagsAboutMe flags={flags.data.items} />}
      <ThanksToMe me={me} />
    </>
  );
}
