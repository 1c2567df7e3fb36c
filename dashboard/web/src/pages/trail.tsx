// Audit trail: search by customer, agent, interaction, action, order, amount and date; the story of one action with its explanation and proof.
import { useRead } from "../api";
import { Filters, Moment } from "../components/controls";
import { Card, Empty, Pending, Top } from "../components/parts";
import { Table } from "../components/table";
import { address } from "../api";
import { duration, number, time } from "../format";
import type { Explanation, Items, TrailEvent, Viewer } from "../types";
import { link, usePlace } from "../url";
import { totalOf } from "./lists";

const NAMES = { from: "From", to: "To", by_time: "Dates", agent: "Agent", customer: "Customer", interaction: "Interaction", action: "Action", order_id: "Order", amount: "Amount" };

export function TrailPage({ me }: { me: Viewer }) {
  const { query } = usePlace();
  const asked: Record<string, string> = {};
  for (const name of [...Object.keys(NAMES), "as_of"]) if (query[name]) asked[name] = query[name];
  const mine = me.role === "agent" && me.person_id ? { agent: me.person_id } : {};
  const story = asked.interaction || asked.action;
  const needsAgent = me.role === "manager" && !asked.agent;
  const { data, problem } = useRead<Items<TrailEvent>>(needsAgent && !story ? null : "trail", { ...mine, ...asked, order: story ? "asc" : "desc", limit: 500, count: true });
  return (
    <>
      <Top title="Audit trail" tools={<details class="pop"><summary class="button">{query.as_of ? `As recorded by ${time(query.as_of) || query.as_of}` : "Now"}</summary><div><Moment /></div></details>}>
        Events in order, with their positions in the log. An action has an explanation, a case file and a proof.
      </Top>
      <Filters names={NAMES} />
      {asked.action && <Explained action={asked.action} me={me} />}
      {needsAgent && !story ? <Empty title="Name an agent.">A team lead reads the trail of one person at a time.</Empty> : !data ? <Pending problem={problem} /> : (
        <Card title={`${totalOf(data.items.length, data.next, data.total)} events`}>
          {data.next !== null && <p class="note">The table has {number(data.items.length)} of them; a file has all.</p>}
          <Table caption="Events" hideCaption rows={data.items} perPage={20} file={(format) => address("trail", { ...mine, ...asked, format })}
            empty={<Empty title="No event fits.">Check the spelling of ids, which are compared exactly, or choose other days.</Empty>} columns={[
              { title: "Position", value: (one) => one.position, right: true }, { title: "Time", value: (one) => one.time, cell: (one) => time(one.time) },
              { title: "Actor", value: (one) => one.who, cell: (one) => (one.who ? <a href={link("trail", { agent: one.who })}>{one.who}</a> : "") },
              { title: "Event", value: (one) => one.what },
              { title: "Concerning", value: (one) => one.whom },
              { title: "Interaction", value: (one) => one.interaction_id, cell: (one) => (one.interaction_id ? <a href={link("trail", { interaction: one.interaction_id })}>{one.interaction_id}</a> : "") },
              { title: "", value: (one) => one.action_id, cell: (one) => (one.action_id ? <a href={link("trail", { action: one.action_id })}>Explain</a> : "") },
              { title: "Recorded", value: (one) => one.recorded, cell: (one) => time(one.recorded), extra: true }, { title: "Source", value: (one) => one.source, extra: true },
            ]} />
        </Card>
      )}
    </>
  );
}

function Explained({ action, me }: { action: string; me: Viewer }) {
  const { data, problem } = useRead<Explanation & { escalation?: { position: number; time: string; what: string; waited_seconds: number | null }[] }>(`explain/${encodeURIComponent(action)}`);
  if (!data) return <Card title="Why it was allowed"><Pending problem={problem} /></Card>;
  const mayProve = ["auditor", "operator"].includes(me.role);
  return (
    <Card title="Why it was allowed" tools={mayProve && <>
      <a class="button" href={`/api/v1/case/${encodeURIComponent(action)}`} download>Case file</a>
      <a class="button" href={`/api/v1/proof/${data.position}`} download>Proof</a>
    </>}>
      <dl class="facts">{data.story.map((line) => <><dt>{line.what}</dt><dd>{line.said}</dd></>)}</dl>
      {(data.escalation?.length ?? 0) > 0 && <><h3>Escalation</h3><ol class="story">{data.escalation?.map((one) => <li key={one.position}><time dateTime={one.time}>{time(one.time)}, position {number(one.position)}</time>{one.what}{one.waited_seconds == null ? "" : ` after ${duration(one.waited_seconds)}`}</li>)}</ol></>}
      {data.after.length > 0 && <><h3>Later events</h3><ol class="story">{data.after.map((one) => <li key={one.position}><time dateTime={one.time}>{time(one.time)}</time>{one.what}</li>)}</ol></>}
    </Card>
  );
}
