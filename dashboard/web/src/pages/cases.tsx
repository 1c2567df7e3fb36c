// Cases of possible misuse: flags about one subject, reviewed together, with their evidence in place.
import { useState } from "preact/hooks";
import { act, refresh, useRead, useWhole } from "../api";
import { Field } from "../components/controls";
import { Card, Empty, Pending, State, Top } from "../components/parts";
import { Person, Subject } from "../components/person";
import { Table } from "../components/table";
import { money, number, time } from "../format";
import type { Case, Flag, Viewer } from "../types";
import { change, link, usePlace } from "../url";
import { totalOf } from "./lists";

export function Cases({ me, say }: { me: Viewer; say: (text: string) => void }) {
  const { query } = usePlace();
  const cases = useWhole<Case>("cases", { as_of: query.as_of ?? null });
  const flags = useWhole<Flag>("flags", { as_of: query.as_of ?? null });
  const chosen = flags.items.find((one) => one.flag_id === query.flag);
  if (!cases.loaded || !flags.loaded) return <><Top title="Cases" /><Pending problem={cases.problem ?? flags.problem} /></>;
  const of = (status: string): Case[] => cases.items.filter((one) => one.status === status).sort((a, b) => (a.rank ?? 0) - (b.rank ?? 0));
  const columns = [
    { title: "Since", value: (one: Case) => one.opened ?? one.found, cell: (one: Case) => <span class="number">{time(one.opened ?? one.found)}</span> },
    { title: "Subject", value: (one: Case) => one.subject, cell: (one: Case) => <Subject of={one.subject} /> }, { title: "Rules", value: (one: Case) => (one.rules ?? []).join(", ") },
    { title: "Expected loss", value: (one: Case) => Number(one.expected_loss?.amount ?? 0), cell: (one: Case) => money(one.expected_loss), right: true },
    { title: "Look at first", value: (one: Case) => one.explanation },
  ];
  return (
    <>
      <Top title="Cases">A flag asks for a human review. It is no verdict.</Top>
      <Card title="Open cases" term="case">
        <Table caption="Open cases" hideCaption rows={of("open")} columns={columns} empty={<Empty title="No case is open.">The guard opens a case where flags about one subject add up.</Empty>} />
      </Card>
      {of("below").length > 0 && <Card title="Below the line"><Table caption="Cases below the line" hideCaption rows={of("below")} columns={columns} perPage={10} /></Card>}
      {chosen && <Review key={chosen.flag_id} flag={chosen} me={me} say={say} />}
      <Card title={`Flags (${totalOf(flags.items.length, flags.next, null)})`} term="flag">
        <Table caption="Flags" hideCaption rows={flags.items} perPage={10} empty={<Empty title="No flag was raised.">Flags appear as the guard finds patterns that ask for a review.</Empty>} columns={[
          { title: "Raised", value: (one) => one.raised, cell: (one) => <span class="number">{time(one.raised)}</span> },
          { title: "Rule", value: (one) => one.rule }, { title: "About", value: (one) => one.about.join(", "), cell: (one) => one.about.map((about) => <div key={about}><Subject of={about} /></div>) },
          { title: "Explanation", value: (one) => one.explanation },
          { title: "State", value: (one) => one.status, cell: (one) => <State name={one.status} /> },
          { title: "", value: (one) => one.flag_id, cell: (one) => <button type="button" class="plain" onClick={() => change({ flag: one.flag_id })}>Evidence</button> },
        ]} />
      </Card>
    </>
  );
}

function Review({ flag, me, say }: { flag: Flag; me: Viewer; say: (text: string) => void }) {
  const [note, setNote] = useState("");
  const [problem, setProblem] = useState<string | null>(null);
  const mayReview = ["manager", "operator"].includes(me.role) && flag.status === "open";
  const send = async (verdict: string | null): Promise<void> => {
    try {
      await act(`flags/${encodeURIComponent(flag.flag_id)}`, { ...(verdict ? { verdict } : {}), ...(note ? { note } : {}) });
      say(verdict ? `The flag is ${verdict}.` : "The review has begun; names are shown.");
      setProblem(null);
      refresh("flags", "cases");
    } catch (failed) { setProblem((failed as Error).message); }
  };
  return (
    <Card title={`Flag ${flag.rule}: ${flag.about.join(", ")}`} tools={<button type="button" class="plain" onClick={() => change({ flag: null })}>Close</button>}>
      <p>{flag.explanation}</p>
      {flag.answer && <p class="note">Answer of the person: {flag.answer}</p>}
      {["auditor", "operator"].includes(me.role) ? <Evidence positions={flag.evidence} /> : <InTrail flag={flag} />}
      {mayReview && (
        <form class="row" aria-label="Review" onSubmit={(event) => event.preventDefault()}>
          <Field label="Note"><input value={note} onInput={(event) => setNote(event.currentTarget.value)} /></Field>
          <button type="button" onClick={() => void send(null)}>Begin review</button>
          {["dismissed", "coached", "confirmed"].map((one) => <button key={one} type="button" onClick={() => void send(one)}>{one}</button>)}
        </form>
      )}
      {problem && <p class="alert" role="alert">{problem}</p>}
    </Card>
  );
}

/** The evidence for a reader who may not open single events: where the trail of each person has it. */
function InTrail({ flag }: { flag: Flag }) {
  const people = flag.about.filter((one) => one.startsWith("agent:")).map((one) => one.slice("agent:".length));
  const hidden = people.some((one) => one.startsWith("~")); // a pseudonym, until the review begins
  return (
    <p class="note">
      The evidence is {number(flag.evidence.length)} {flag.evidence.length === 1 ? "event" : "events"} at the positions {flag.evidence.slice(0, MOST_POSITIONS).map(number).join(", ")}{flag.evidence.length > MOST_POSITIONS ? ", …" : ""}
      {" "}of the log. {hidden ? "Begin the review to see whose audit trail has them" : "The audit trail has them: "}{!hidden && people.map((one, at) => <>{at > 0 && ", "}<a href={link("trail", { agent: one, from: null, to: null })}><Person id={one} /></a></>)}.
    </p>
  );
}
const MOST_POSITIONS = 20;

interface Recorded { event: { time: string; data: Record<string, unknown> }; what: string }

function Evidence({ positions }: { positions: number[] }) {
  const [shown, show] = useState(8);
  return (
    <div>
      <h3>Evidence</h3>
      <ol class="story">{positions.slice(0, shown).map((one) => <EvidenceEvent key={one} position={one} />)}</ol>
      {positions.length > shown && <button type="button" class="plain" onClick={() => show(shown + 20)}>Show more of {number(positions.length)}</button>}
    </div>
  );
}

function EvidenceEvent({ position }: { position: number }) {
  const { data, problem } = useRead<Recorded>(`events/${position}`);
  if (!data) return <li><time>Position {position}</time>{problem ?? "…"}</li>;
  const { time: at, data: body } = data.event;
  const action = typeof body.action_id === "string" ? body.action_id : null;
  const named = ["agent_id", "customer_id"].map((name) => body[name]).filter((one) => typeof one === "string" && !data.what.includes(one)).join(", ");
  return (
    <li>
      <time dateTime={at}>{time(at)}, position {number(position)}</time>
      {named && `${named}: `}{data.what} {action && <a href={link("trail", { action })}>Explain</a>}
    </li>
  );
}
