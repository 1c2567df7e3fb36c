// Lists that figures open: actions, escalations and budgets, with filters in the address.
import { MOST_ROWS, address, useWhole } from "../api";
import type { Access, Query } from "../api";
import { Filters, KINDS, Moment } from "../components/controls";
import { Card, Empty, Meter, Pending, State, Top } from "../components/parts";
import { Person } from "../components/person";
import { Table } from "../components/table";
import type { Column } from "../components/table";
import { duration, money, number, percent, period, time, words } from "../format";
import type { Action, Balance, Escalation } from "../types";
import { here, link, usePlace } from "../url";

/** The number of items in a list; without a total that the ledger could count in time, the least that it may be. */
export function totalOf(shown: number, next: number | string | null, total: number | null | undefined): string {
  if (next === null) return number(shown);
  return total == null ? `more than ${number(shown)}` : number(total);
}

function ListPage<T>({ title, path, names, choices, columns, about, fixed = {} }: {
  title: string; path: string; names: Record<string, string>; choices?: Record<string, string[]>; columns: Column<T>[]; about: string; fixed?: Query;
}) {
  const { query } = usePlace();
  const asked: Query = { ...fixed };
  for (const name of [...Object.keys(names), "as_of", "tz"]) if (query[name]) asked[name] = query[name];
  const { items, next, total, problem, loaded } = useWhole<T>(path, asked);
  const filters = Object.entries(asked).filter(([name]) => name !== "as_of").map(([name, value]) => `${names[name] ?? name}: ${String(value)}`).join(", ");
  return (
    <>
      <Top title={title} tools={<details class="pop"><summary class="button">{query.as_of ? `As recorded by ${time(query.as_of) || query.as_of}` : "Now"}</summary><div><Moment /></div></details>}>{about}</Top>
      <Filters names={names} {...(choices ? { choices } : {})} />
      {problem && <Pending problem={problem} />}
      {!loaded ? !problem && <Pending problem={null} /> : (
        <Card title={`${totalOf(items.length, next, total)} ${title.toLowerCase()}`}>
          {next !== null && items.length >= MOST_ROWS && <p class="note">The table has the first {number(items.length)}; a file has all.</p>}
          <Table key={path} caption={title} hideCaption rows={items} columns={columns} file={(format) => address(path, { ...asked, format })} perPage={20}
            empty={<Empty title={filters ? "Nothing fits these filters." : `No ${title.toLowerCase()} yet.`}>{filters ? "Clear a filter or choose other days." : "They appear here as soon as the ledger records the first."}</Empty>} />
        </Card>
      )}
    </>
  );
}

const RANGE = { from: "From", to: "To", by_time: "Dates" };
const agentOf = (one: { agent_id: string; agent_kind: string | null }): string => (one.agent_kind === "ai" ? `${one.agent_id} (AI)` : one.agent_id);

const ACTIONS: Column<Action>[] = [
  { title: "Time", value: (one) => one.time, cell: (one) => time(one.time) },
  { title: "Agent", value: agentOf, cell: (one) => <a href={link("trail", { agent: one.agent_id })}><Person id={one.agent_id} ai={one.agent_kind === "ai"} /></a> },
  { title: "Kind", value: (one) => words(one.kind) }, { title: "Reason", value: (one) => one.reason },
  { title: "Customer", value: (one) => one.customer_id, cell: (one) => (one.customer_id ? <a href={link("actions", { customer: one.customer_id })}>{one.customer_id}</a> : "") },
  { title: "Amount", value: (one) => Number(one.amount.amount), cell: (one) => money(one.amount), right: true },
  { title: "State", value: (one) => one.state, cell: (one) => <State name={one.state} /> },
  { title: "", value: (one) => one.action_id, cell: (one) => <a href={link("trail", { action: one.action_id })}>Explain</a> },
  { title: "Team", value: (one) => one.team_id, extra: true }, { title: "Basis", value: (one) => one.basis, extra: true },
  { title: "Decided by", value: (one) => one.decided_by, extra: true }, { title: "Interaction", value: (one) => one.interaction_id, extra: true },
];
export const Actions = () => (
  <ListPage<Action> title="Actions" path="actions" columns={ACTIONS} about="Remedies with their present state, the newest first." choices={{ kind: KINDS, given: ["true", "false"] }}
    names={{ ...RANGE, agent: "Agent", team: "Team", kind: "Kind", reason: "Reason", customer: "Customer", amount: "Amount", given: "Given" }} />
);

/** The seconds until the decision; of an escalation that waits, until the moment looked at: now, or unknown at a position of the past. */
function waited(one: Escalation): number | null {
  if (one.status !== "waiting") return one.waited_seconds;
  const past = here().query.as_of;
  if (past && /^\d+$/.test(past)) return null;
  return ((past ? Date.parse(past) : Date.now()) - Date.parse(one.requested)) / 1000;
}
/** The events to show beside an escalation: those of its interaction, else of its customer, else all of its agent. */
const storyOf = (one: Escalation): Record<string, string> => (
  one.interaction_id ? { interaction: one.interaction_id } : one.customer_id ? { customer: one.customer_id } : {}
);

const ESCALATIONS: Column<Escalation>[] = [
  { title: "Requested", value: (one) => one.requested, cell: (one) => time(one.requested) },
  { title: "Agent", value: agentOf, cell: (one) => <a href={link("trail", { agent: one.agent_id })}><Person id={one.agent_id} ai={one.agent_kind === "ai"} /></a> },
  { title: "Kind", value: (one) => words(one.kind) }, { title: "Reason", value: (one) => one.reason },
  { title: "Asked", value: (one) => Number(one.asked?.amount ?? 0), cell: (one) => money(one.asked), right: true },
  { title: "Approved", value: (one) => Number(one.amount?.amount ?? 0), cell: (one) => (one.status === "approved" ? money(one.amount) : ""), right: true },
  { title: "Outcome", value: (one) => one.status, cell: (one) => <State name={one.status} /> },
  { title: "Decided by", value: (one) => one.decided_by, cell: (one) => one.decided_by && <Person id={one.decided_by} /> }, { title: "Waited", value: waited, cell: (one) => duration(waited(one)), right: true },
  { title: "", value: (one) => one.interaction_id, cell: (one) => <a href={link("trail", { agent: one.agent_id, ...storyOf(one), from: null, to: null })}>Story</a> },
  { title: "Team", value: (one) => one.team_id, extra: true }, { title: "Customer", value: (one) => one.customer_id, extra: true },
  { title: "Interaction", value: (one) => one.interaction_id, extra: true },
];
export const Escalations = () => (
  <ListPage<Escalation> title="Escalations" path="escalations" columns={ESCALATIONS} about="Requests for the authority of another person, the newest first."
    choices={{ kind: KINDS, status: ["waiting", "approved", "denied", "withdrawn", "expired"] }}
    names={{ ...RANGE, agent: "Agent", team: "Team", kind: "Kind", reason: "Reason", customer: "Customer", amount: "Amount", status: "Outcome" }} />
);

const used = (one: Balance): number => (Number(one.granted.amount) ? Number(one.spent.amount) / Number(one.granted.amount) : 0);
const BUDGETS: Column<Balance>[] = [
  { title: "Holder", value: (one) => one.holder, cell: (one) => <a href={link("spending", { holder: one.holder, period: one.period })}>{one.holder}</a> },
  { title: "Period", value: (one) => one.period, cell: (one) => period(one.period) },
  { title: "Spent share", value: used, cell: (one) => <><Meter share={used(one)} label={`${percent(used(one))} spent`} /> {percent(used(one))}</>, right: true },
  { title: "Granted", value: (one) => Number(one.granted.amount), cell: (one) => money(one.granted), right: true },
  { title: "Spent", value: (one) => Number(one.spent.amount), cell: (one) => money(one.spent), right: true },
  { title: "Reserved", value: (one) => Number(one.reserved.amount), cell: (one) => money(one.reserved), right: true, extra: true },
  { title: "Remaining", value: (one) => Number(one.remaining.amount), cell: (one) => money(one.remaining), right: true },
];
export const Budgets = () => {
  const { query } = usePlace();
  return <ListPage<Balance> title="Budgets" path="balances" columns={BUDGETS} about="What each holder may spend in a period, and what is left. A budget is posted when a decision is recorded, so its dates are always those of recording." fixed={query.closed ? {} : { closed: false }}
    choices={{ closed: ["true", "false"] }} names={{ holder: "Holder", team: "Team", period: "Period", closed: "Closed" }} />;
};

const ACCESSES: Column<Access>[] = [
  { title: "Time", value: (one) => one.time, cell: (one) => time(one.time) },
  { title: "Person", value: (one) => one.who, cell: (one) => <a href={link("accesses", { who: one.who })}>{one.who}</a> },
  { title: "Access", value: (one) => one.what },
  { title: "About", value: (one) => one.about.join(", ") }, { title: "Via", value: (one) => one.via },
  { title: "Position", value: (one) => one.position, right: true },
  { title: "Read up to", value: (one) => one.up_to, right: true, extra: true }, { title: "Recorded", value: (one) => one.recorded, cell: (one) => time(one.recorded), extra: true },
];
export const Accesses = () => (
  <ListPage<Access> title="Accesses" path="accesses" columns={ACCESSES} choices={{ via: ["http", "cli"] }} names={{ ...RANGE, who: "Person", via: "Via" }}
    about="Sign-ins, sign-outs, exports and other rights that were used, the newest first. Reads about named people are here where the policy records them." />
);

/** The spending of one budget. */
export function Spending() {
  const { query } = usePlace();
  return <ListPage<Action> title="Spending" path="actions" columns={ACTIONS} about={`Actions that drew on the budget of ${query.holder ?? "a holder"} in ${query.period ?? "a period"}.`} names={{ holder: "Holder", period: "Period" }} />;
}
