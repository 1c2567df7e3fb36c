// A section of plain elements in the shell: filled once for each address, and not replaced while a form is in use.
import { useEffect, useRef, useState } from "preact/hooks";
import { act, readKept, useRead } from "../api";
import type { Query } from "../api";
import { Chart } from "../components/chart";
import { Moment } from "../components/controls";
import { Card, Pending, Top } from "../components/parts";
import { Table } from "../components/table";
import type { Column } from "../components/table";
import { intervalOf, money, number, time, words } from "../format";
import type { Money, Viewer } from "../types";
import { link, showsThePast, usePlace } from "../url";
import { SECTIONS } from "./sections";

type Name = keyof typeof SECTIONS;

export function Section({ name, title, about, me }: { name: Name; title: string; about: string; me: Viewer }) {
  const place = useRef<HTMLDivElement>(null);
  const [problem, setProblem] = useState<string | null>(null);
  const [filled, setFilled] = useState(false);
  const { query } = usePlace();
  const asOf = showsThePast(name) ? query.as_of : undefined;
  useEffect(() => {
    let current = true;
    const ask = (path: string, asked: object = {}): Promise<unknown> =>
      readKept(path, { ...asked, ...(asOf && /^(loyalty|gap|recognition)$/.test(path) ? { as_of: asOf } : {}) } as Query);
    const made = document.createElement("div");
    made.className = "section";
    setFilled(false);
    SECTIONS[name](made, { ask, act, me, travelling: Boolean(asOf) }).then(() => {
      if (!current) return;
      place.current?.replaceChildren(made);
      setProblem(null);
      setFilled(true);
    }, (failed: Error) => { if (current) setProblem(failed.message); });
    return () => { current = false; };
  }, [name, asOf]);
  return (
    <>
      <Top title={title} tools={showsThePast(name) && <details class="pop"><summary class="button">{asOf ? `As recorded by ${time(asOf) || asOf}` : "Now"}</summary><div><Moment /></div></details>}>{about}</Top>
      {!filled && <Pending problem={problem} />}
      {name === "value" && <Forest asOf={asOf ?? null} />}
      {name === "value" && <Customers asOf={asOf ?? null} />}
      <div ref={place} />
    </>
  );
}

type Bought = { purchases: number; revenue: Money } | null;
interface Helped { action_id: string; customer_id: string | null; kind: string; time: string; cost: Money; windows: Record<string, { after: Bought }> }

/** The customers of the newest actions, and what they bought afterwards. */
function Customers({ asOf }: { asOf: string | null }) {
  const { data } = useRead<{ items: Helped[]; next: number | null }>("loyalty", { limit: NEWEST, as_of: asOf });
  if (!data?.items.length) return null;
  const after = (days: number): Column<Helped> => ({
    title: `After ${days} days`, right: true, value: (one) => one.windows[days]?.after?.purchases,
    cell: (one) => { const of = one.windows[days]?.after; return of ? `${number(of.purchases)}, ${money(of.revenue)}` : "not over"; },
  });
  return (
    <Card title="Purchases after an action">
      <p class="note">Purchases and their amount in the days after an action{data.next === null ? "" : `, for the newest ${number(data.items.length)} actions`}.</p>
      <Table caption="Purchases after an action" hideCaption rows={data.items} perPage={10} columns={[
        { title: "Customer", value: (one) => one.customer_id, cell: (one) => <a href={link("actions", { customer: one.customer_id, from: null, to: null })}>{one.customer_id}</a> },
        { title: "Action", value: (one) => words(one.kind), cell: (one) => <a href={link("trail", { action: one.action_id, from: null, to: null })}>{words(one.kind)}</a> },
        { title: "Time", value: (one) => one.time, cell: (one) => time(one.time) },
        { title: "Cost", value: (one) => Number(one.cost.amount), cell: (one) => money(one.cost), right: true },
        after(30), after(90), after(180),
      ]} />
    </Card>
  );
}
const NEWEST = 200;

interface Effect { rung: number; method: string; n: number; value: Money | null; interval: [Money, Money] | null; called: string; caveats: string[] }
type Ends = [Money, Money] | null;
interface Window {
  days: number; n: number; mean_before: Money | null; mean_before_interval: Ends; mean_after: Money | null; mean_after_interval: Ends;
  mean_cost: Money | null; mean_cost_interval: Ends;
}
interface Loyalty { currencies: { currency: string; summary?: Window[]; ladder: { days: number; spending: Effect[] }[] }[] }
type Mean = "mean_before" | "mean_after" | "mean_cost";
const amountOf = (money: Money | null | undefined): number | null => (money ? Number(money.amount) : null);
/** A column of means, each with its interval and n. */
const meanColumn = (title: string, name: Mean, currency: string): Column<Window> => ({
  title: `${title}, ${currency}`, right: true, value: (one) => amountOf(one[name]),
  cell: (one) => (one[name] ? `${money(one[name])} (${intervalOf(one[`${name}_interval`], money, one.n)})` : "–"),
});

/** The difference in spending of customers with an action, by evidence level; a chart for each currency. */
function Forest({ asOf }: { asOf: string | null }) {
  const { data } = useRead<Loyalty>("loyalty", { limit: 1, as_of: asOf });
  return <>{data?.currencies.map((one) => <ForestIn key={one.currency} data={data} currency={one} />)}</>;
}

function ForestIn({ data, currency }: { data: Loyalty; currency: Loyalty["currencies"][number] }) {
  const lines = currency.ladder.flatMap(({ days, spending }) => spending.map((one) => ({ ...one, days })));
  const known = lines.filter((one) => one.value && one.interval);
  if (!known.length) return null;
  const format = (value: number): string => money({ amount: String(value), currency: currency.currency });
  return (
    <Chart title={`Difference in spending, ${currency.currency}`} term="evidence level" drawn={data} label={`Difference in spending by evidence level; "Numbers" shows it as a table`}
      legend="A dot is the estimate, the line its 95 % interval. Level 1 and 2 are descriptions and no effects."
      draw={(plots, width) => plots.forest(known.map((one) => ({
        name: `${one.days} days, level ${one.rung}`, value: Number(one.value?.amount), low: Number(one.interval?.[0].amount), high: Number(one.interval?.[1].amount),
        title: `${one.method}: ${money(one.value)}, n = ${number(one.n)}; ${one.called}`,
      })), width, format)}
      table={<><Table caption="Difference in spending" rows={lines} columns={[
        { title: "Days", value: (one) => one.days, right: true }, { title: "Level", value: (one) => one.rung, right: true, term: "evidence level" }, { title: "Method", value: (one) => one.method },
        { title: "n", value: (one) => one.n, right: true }, { title: `Difference, ${currency.currency}`, value: (one) => amountOf(one.value), cell: (one) => money(one.value), right: true },
        { title: "95 % interval", value: (one) => amountOf(one.interval?.[0]), cell: (one) => (one.interval ? `${money(one.interval[0])} to ${money(one.interval[1])}` : "–"), right: true, term: "interval" },
      ]} />
      <Table caption="Mean purchases of a customer with an action, and its cost" rows={currency.summary ?? []} columns={[
        { title: "Days", value: (one) => one.days, right: true }, ...([["Before", "mean_before"], ["After", "mean_after"], ["Cost", "mean_cost"]] as const).map(([title, name]) => meanColumn(title, name, currency.currency)),
      ]} /></>} />
  );
}
