// Overview: what was given in the chosen days, with the days before, and what the front line cannot do.
import { useRef } from "preact/hooks";
import { useRead } from "../api";
import { goodwillBy } from "../currencies";
import { Chart } from "../components/chart";
import { Dates, useRange } from "../components/controls";
import { Card, Empty, Figure, Figures, Pending, Top, changeFrom, pointsFrom } from "../components/parts";
import { Table } from "../components/table";
import { amounts, day, duration, fine, hoursInterval, interval, intervalOf, money, number, percent, words } from "../format";
import type { Action, BeyondAuthority, Consistency, Divided, Figures as SummaryFigures, Given, Items, Range, Summary, Viewer } from "../types";
import { link } from "../url";

/** The share of actions that were given without approval, of these and of all escalations. */
export function onTheSpot(one: { actions: { given: number }; escalations: { requested: number; outcomes: Record<string, number> } } | null): number | null {
  if (!one) return null;
  const own = Math.max(0, one.actions.given - (one.escalations.outcomes.approved ?? 0));
  return own + one.escalations.requested ? own / (own + one.escalations.requested) : null;
}

export const approved = ({ escalations }: SummaryFigures): string =>
  (escalations.approved.share == null ? "none decided yet" : `${percent(escalations.approved.share)} approved`);

/** The goodwill in the currency of most actions, compared with that of the days before. */
export function goodwillChange(now: Summary["total"]): string | null {
  const [currency] = goodwillBy(now);
  const was = now.before?.actions.by_currency.find((one) => one.currency === currency?.currency);
  return currency ? changeFrom(Number(currency.goodwill.amount), was && Number(was.goodwill.amount)) : null;
}

/** The budgets by currency, without a currency in which nothing was granted and spent. */
export const budgetsIn = ({ budgets }: SummaryFigures): NonNullable<SummaryFigures["budgets"]> =>
  (budgets ?? []).filter((one) => Number(one.granted.amount) || Number(one.spent.amount));

/** The time of the newest action that the reader sees: at first that of the sign-in, then that of the list. */
export function useNewest(me: Viewer, ready: boolean): string | null {
  const { data } = useRead<Items<Action>>(ready ? "actions" : null, { limit: 1 });
  return (data === null ? me.newest_action : data.items[0]?.time) ?? null;
}

export function Overview({ me }: { me: Viewer }) {
  const figuresShown = useRef(false);
  const newest = useNewest(me, figuresShown.current);
  const range = useRange(newest);
  const { data, problem } = useRead<Summary>("summary", { ...range, by: "day" });
  figuresShown.current ||= data !== null || problem !== null;
  const after = (path: string): string | null => (figuresShown.current ? path : null); // the figures come first
  const teams = useRead<Summary>(after("summary"), { ...range, by: "team" });
  const kinds = useRead<Summary>(after("summary"), { ...range, by: "kind" });
  const reasons = useRead<Summary>(after("summary"), { ...range, by: "reason" });
  const beyond = useRead<BeyondAuthority>(after("beyond-authority"), range);
  const even = useRead<Items<Consistency>>(after("consistency"), range);
  return (
    <>
      <Top title="Overview" tools={<Dates {...range} zone={data?.time_zone ?? null} newest={newest} />}>
        {data?.before ? `Compared with ${day(data.before.from, data.time_zone)} to ${day(lastDay(data.before.to), data.time_zone)}.` : "Totals of the chosen days."} Everything counts on the day on which it happened; the lists can be limited by the day of recording instead.
      </Top>
      {!data ? <Pending problem={problem} /> : <Totals summary={data} range={range} />}
      {data && <GoodwillByDay summary={data} />}
      <CannotDo beyond={beyond.data} range={range} problem={beyond.problem} />
      <div class="two">
        <Groups title="By kind" name="kind" range={range} summary={kinds.data} problem={kinds.problem} />
        <Groups title="By reason" name="reason" range={range} summary={reasons.data} problem={reasons.problem} />
        <Groups title="By team" name="team" range={range} summary={teams.data} problem={teams.problem} />
        {even.data?.items.filter((one) => one.what === "any").map((one) => <Funnel key={one.by} one={one} />)}
      </div>
    </>
  );
}

const lastDay = (end: string): string => new Date(Date.parse(end) - 1).toISOString();

function Totals({ summary, range }: { summary: Summary; range: Range }) {
  const now = summary.total;
  const before = now.before;
  const budgets = budgetsIn(now);
  const csat = now.satisfaction?.find((one) => one.instrument === "csat") ?? now.satisfaction?.[0];
  const csatBefore = before?.satisfaction?.find((one) => one.instrument === csat?.instrument);
  const waited = now.escalations.hours_waited;
  const spot = onTheSpot(now);
  const spotChange = pointsFrom(spot, onTheSpot(before));
  const of = (name: "first_contact" | "transferred") => ({
    value: percent(now.interactions?.[name].share), more: interval(now.interactions?.[name]),
    change: pointsFrom(now.interactions?.[name].share, before?.interactions?.[name].share),
  });
  return (
    <Figures>
      <Figure label="Goodwill" term="goodwill" value={amounts(goodwillBy(now).map((one) => one.goodwill))} href={link("actions", { ...range, given: "true" })}
        change={goodwillChange(now)} more={[`${number(now.actions.given)} actions`, ...goodwillBy(now).flatMap(medianOf)].join("; ")} />
      <Figure label="Budgets spent" term="budget" value={budgets.map((one) => percent(one.spent_share)).join(" · ") || "–"} href={link("budgets")}
        more={budgets.map((one) => `${money(one.spent)} of ${money(one.granted)}`).join(" · ")} />
      <Figure label="On the spot" term="on the spot" value={percent(spot)} change={spotChange} better={better(spotChange, true)} more="without approval" />
      <Figure label="Escalations" term="escalation" value={number(now.escalations.requested)} href={link("escalations", range)}
        change={changeFrom(now.escalations.requested, before?.escalations.requested)} more={approved(now)} />
      <Figure label="First contact" term="first contact" {...of("first_contact")} better={better(of("first_contact").change, true)} />
      <Figure label="Transferred" term="transferred" {...of("transferred")} better={better(of("transferred").change, false)}
        more={`${of("transferred").more}${meanTransfers(now)}`} />
      <Figure label={csat ? `Satisfied (${csat.instrument.toUpperCase()})` : "Satisfied"} term="satisfied" value={percent(csat?.satisfied?.share)} more={interval(csat?.satisfied)}
        change={pointsFrom(csat?.satisfied?.share, csatBefore?.satisfied?.share)} better={better(pointsFrom(csat?.satisfied?.share, csatBefore?.satisfied?.share), true)} />
      <Figure label="Waiting for a decision" term="waiting" value={hours(waited.median)} href={link("escalations", range)}
        more={waited.median == null ? "median" : `median, ${hoursInterval(waited.median_interval, waited.n)}${before?.escalations.hours_waited.median != null ? `; ${hours(before.escalations.hours_waited.median)} before` : ""}`} />
    </Figures>
  );
}
/** The median of the goodwill of an action in one currency. */
const medianOf = (one: Given): string[] =>
  (one.median_goodwill ? [`median ${money(one.median_goodwill)} (${intervalOf(one.median_goodwill_interval, money, one.goodwill_actions)})`] : []);
const meanTransfers = ({ interactions: of }: SummaryFigures): string =>
  (of?.mean_transfers == null ? "" : `; mean ${fine(of.mean_transfers)} (${intervalOf(of.mean_transfers_interval, fine, of.opened)})`);
const hours = (value: number | null): string => duration(value == null ? null : value * 3600);
const better = (change: string | null, up: boolean): boolean | null => (!change || change.startsWith("±") ? null : change.startsWith("+") === up);

/** A chart for each currency. */
function GoodwillByDay({ summary }: { summary: Summary }) {
  const given = goodwillBy(summary.total);
  if (!given.length) return <Empty title="Nothing was given in these days.">Choose other days, or look at all <a href="#/actions">actions</a>.</Empty>;
  return <>{given.map(({ currency }) => <GoodwillIn key={currency} summary={summary} currency={currency} />)}</>;
}

function GoodwillIn({ summary, currency }: { summary: Summary; currency: string }) {
  const of = (one: Divided): number => Number(one.actions.by_currency.find((at) => at.currency === currency)?.goodwill.amount ?? 0);
  const points = summary.groups.map((one) => ({
    day: new Date(`${one.group}T12:00:00Z`), value: of(one),
    title: `${day(one.group)}: ${money({ amount: String(of(one)), currency })}, ${number(one.actions.given)} actions`,
  }));
  return (
    <Chart title={`Goodwill by day, ${currency}`} term="goodwill" drawn={summary} label={`Goodwill by day in ${currency}; "Numbers" shows it as a table`}
      draw={(plots, width) => plots.byDay(points, width)}
      table={<Table caption={`Goodwill by day, ${currency}`} rows={summary.groups} perPage={31} columns={[
        { title: "Day", value: (one) => one.group, cell: (one) => <a href={link("actions", { from: one.group, to: one.group, given: "true" })}>{day(one.group)}</a> },
        { title: "Actions", value: (one) => one.actions.given, right: true },
        { title: "Goodwill", value: of, cell: (one) => money({ amount: String(of(one)), currency }), right: true },
        { title: "Escalations", value: (one) => one.escalations.requested, right: true },
      ]} />} />
  );
}

function CannotDo({ beyond, range, problem }: { beyond: BeyondAuthority | null; range: Range; problem: string | null }) {
  if (!beyond) return <Card title="What the front line cannot do"><Pending problem={problem} /></Card>;
  const { items } = beyond;
  if (!items.length) return <Empty title="Nothing was beyond the limits in these days.">Escalations and blocked actions appear here, by kind and reason.</Empty>;
  const totals = new Map<string, number>();
  for (const one of items) totals.set(one.reason, (totals.get(one.reason) ?? 0) + one.asked);
  const rows = [...totals].sort((a, b) => b[1] - a[1]).slice(0, 8).map(([reason]) => reason);
  const cells = items.filter((one) => rows.includes(one.reason) && one.asked).map((one) => ({
    column: words(one.kind), row: short(one.reason), value: one.asked, href: escalationsOf(one, range), title: one.text,
  })).sort((a, b) => rows.findIndex((one) => short(one) === a.row) - rows.findIndex((one) => short(one) === b.row));
  return (
    <Chart title="What the front line cannot do" term="escalation" drawn={beyond} label="Escalations by reason and kind; a cell opens them"
      draw={(plots, width) => plots.heat(cells, width)}
      legend="Escalations by reason and kind, goodwill alone. A cell opens the escalations of its kind and reason."
      table={<Table caption="Beyond authority" rows={items} columns={[
        { title: "Kind", value: (one) => words(one.kind) }, { title: "Reason", value: (one) => one.reason },
        { title: "Escalated", value: (one) => one.asked, right: true, cell: (one) => <a href={escalationsOf(one, range)}>{number(one.asked)}</a> },
        { title: "Approved in full", value: (one) => one.approved_anyway, right: true },
        { title: "Blocked, not escalated", value: (one) => one.silent, right: true, term: "silent gap" },
      ]} />} />
  );
}
const LONGEST = 1_000;
/** Whether the rows of a group can be listed by its name: the rows of events that name none have no name. */
const isFilter = (group: string): boolean => group !== "not said" && group.length <= LONGEST;
/** The escalations of a kind and a reason, where both are filters. */
const escalationsOf = (one: { kind: string; reason: string }, range: Range): string | undefined =>
  (!isFilter(one.reason) || !isFilter(one.kind) ? undefined : link("escalations", { ...range, kind: one.kind, reason: one.reason }));
const short = (text: string): string => (text.length > 24 ? `${text.slice(0, 23)}…` : text || "no reason");

function Groups({ title, name, range, summary, problem }: {
  title: string; name: "team" | "kind" | "reason"; range: Range; summary: Summary | null; problem: string | null;
}) {
  if (!summary) return <Card title={title}><Pending problem={problem} /></Card>;
  return (
    <Card title={title}>
      <Table caption={title} hideCaption rows={summary.groups} perPage={10} empty={<Empty title="Nothing in these days.">Choose other days.</Empty>} columns={[
        { title: words(name), value: (one) => (name === "kind" ? words(one.group) : one.group) },
        { title: "Actions", value: (one) => one.actions.given, right: true, cell: (one) => (isFilter(one.group) ? <a href={link("actions", { ...range, [name]: one.group, given: "true" })}>{number(one.actions.given)}</a> : number(one.actions.given)) },
        { title: "Goodwill", value: (one) => Number(goodwillBy(one)[0]?.goodwill.amount ?? 0), right: true, cell: (one) => amounts(goodwillBy(one).map((at) => at.goodwill)) },
        { title: "Escalated", value: (one) => one.escalations.requested, right: true },
        { title: "On the spot", value: (one) => onTheSpot(one), right: true, cell: (one) => percent(onTheSpot(one)), term: "on the spot" },
        { title: "First contact", value: (one) => one.interactions?.first_contact.share, right: true, extra: true, cell: (one) => percent(one.interactions?.first_contact.share) },
        { title: "Before", value: (one) => one.before?.actions.given, right: true, extra: true },
      ]} />
    </Card>
  );
}

function Funnel({ one }: { one: Consistency }) {
  const points = one.groups.filter((at) => at.given.share != null).map((at) => ({
    group: at.group, n: at.given.n, share: at.given.share ?? 0, low: at.limits[0], high: at.limits[1],
    outside: (at.given.share ?? 0) < at.limits[0] || (at.given.share ?? 0) > at.limits[1],
    title: `${at.group}: ${percent(at.given.share)} of ${number(at.given.n)} interactions; by chance ${percent(at.limits[0])} to ${percent(at.limits[1])}`,
  }));
  const outside = points.filter((at) => at.outside).map((at) => at.group);
  return (
    <Chart title={`Consistency by ${one.by}`} term="funnel" drawn={one} label={`Share of interactions with goodwill by ${one.by}; "Numbers" shows it as a table`}
      draw={(plots, width) => plots.funnel(points, one.given.share ?? 0, width)}
      legend={outside.length ? `More than chance: ${outside.join(", ")}.` : `No ${one.by} differs by more than chance.`}
      table={<Table caption={`Consistency by ${one.by}`} rows={one.groups} columns={[
        { title: words(one.by), value: (at) => at.group }, { title: "Interactions", value: (at) => at.given.n, right: true },
        { title: "With goodwill", value: (at) => at.given.share, right: true, cell: (at) => `${percent(at.given.share)} (${interval(at.given)})` },
        { title: "Median", value: (at) => Number(at.medians[0]?.amount ?? 0), right: true, cell: (at) => at.medians.map((one, place) => {
          const of = at.median_intervals[place];
          return of ? `${money(one)} (${intervalOf(of.interval, money, of.n)})` : money(one);
        }).join(" · ") },
        { title: "Limits", value: (at) => at.limits[0], right: true, cell: (at) => `${percent(at.limits[0])} to ${percent(at.limits[1])}` },
      ]} />} />
  );
}
