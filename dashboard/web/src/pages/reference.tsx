// The glossary, and one page that shows each component.
import { Chart } from "../components/chart";
import { Dates, Field } from "../components/controls";
import { Card, Empty, Figure, Figures, Meter, State, Term, Top } from "../components/parts";
import { Table } from "../components/table";
import { money, number, percent, time } from "../format";
import { STATES, TERMS } from "../words";

export function Glossary() {
  return (
    <>
      <Top title="Glossary">Terms of the ledger. On other pages they have a dotted line, and explain themselves on hover and focus.</Top>
      <Card><dl class="facts">{Object.entries(TERMS).map(([name, text]) => <><dt>{name}</dt><dd>{text}</dd></>)}</dl></Card>
    </>
  );
}

const DAYS = Array.from({ length: 14 }, (_, at) => ({ day: new Date(Date.UTC(2026, 0, at + 1, 12)), value: 40 + 25 * Math.sin(at), title: `day ${at + 1}` }));
const ROWS = [{ name: "Refund", count: 12, share: 0.4 }, { name: "Gift", count: 7, share: 0.23 }, { name: "Credit", count: 11, share: 0.37 }];

export function Components() {
  const sample = { amount: "1234.50", currency: "GBP" };
  return (
    <>
      <Top title="Components" tools={<button type="button">A tool</button>}>Everything that pages are made of, with invented data.</Top>
      <Figures>
        <Figure label="A figure" value={money(sample)} change="+4.2 %" better more="with its change" />
        <Figure label="A link" value={number(42)} href="#/components" more="opens a list" />
        <Figure label="A term" term="on the spot" value={percent(0.823)} change="−1.3 points" better={false} />
        <Figure label="A meter" value={percent(0.6)} more={<Meter share={0.6} label="60 % spent" />} />
      </Figures>
      <Card title="Dates"><Dates from="2026-01-01" to="2026-01-30" zone="Europe/London" newest="2026-01-30" /></Card>
      <div class="two">
        <Chart title="A chart" drawn={1} label="Invented values by day" draw={(plots, width) => plots.byDay(DAYS, width)} legend="A legend says what the marks are."
          table={<Table caption="The numbers" rows={DAYS} columns={[{ title: "Day", value: (one) => one.title }, { title: "Value", value: (one) => one.value, cell: (one) => number(one.value), right: true }]} />} />
        <Card title="A table"><Table caption="Kinds" hideCaption rows={ROWS} columns={[{ title: "Kind", value: (one) => one.name }, { title: "Count", value: (one) => one.count, right: true }, { title: "Share", value: (one) => one.share, cell: (one) => percent(one.share), right: true, term: "interval" }]} /></Card>
      </div>
      <Card title="A form">
        <form class="row" onSubmit={(event) => event.preventDefault()}>
          <Field label="Text"><input /></Field><Field label="Choice"><select><option>one</option><option>two</option></select></Field><button class="first">Send <kbd>S</kbd></button><button type="button">Cancel</button>
        </form>
        <p class="alert">What went wrong, and what to do.</p>
      </Card>
      <Card title="States"><div class="tools">{Object.keys(STATES).map((one) => <State key={one} name={one} />)}</div></Card>
      <Card title="A story"><ol class="story"><li><time>{time("2026-01-01T10:00:00Z")}</time>interaction opened: phone</li><li><time>{time("2026-01-01T10:09:00Z")}</time>refund of 5.00 GBP</li></ol></Card>
      <Empty title="Nothing here yet.">An empty state says what to do. See the <Term name="event">glossary</Term>.</Empty>
    </>
  );
}
