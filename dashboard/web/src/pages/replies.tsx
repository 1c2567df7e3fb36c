// Obstacles and ideas of a lead's people that wait for an answer, and thanks; O and T begin them.
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { act, useWhole } from "../api";
import type { Idea, IdeaDecision, Obstacle, Thanks } from "../api";
import { Field, isTyping } from "../components/controls";
import { Card, Empty, Pending } from "../components/parts";
import { Person } from "../components/person";
import { number, since, words } from "../format";
import type { Employee, Viewer } from "../types";

type Given = { me: Viewer; say: (text: string) => void };
type Voice = { what: "obstacle" | "idea"; id: string; employee_id: string; time: string; text: string | null };
const SHOWN = 4;
const DECISIONS: IdeaDecision["decision"][] = ["accepted", "tried out", "declined"];
const REASONS: Thanks["reason"][] = ["helped a customer", "helped a colleague", "good idea", "good work"];

/** Calls a function on a key, unless the reader types in a field. */
function useKey(key: string, then: () => void): void {
  useEffect(() => {
    const pressed = (event: KeyboardEvent): void => {
      if (event.key !== key || isTyping(event)) return;
      event.preventDefault();
      then();
    };
    addEventListener("keydown", pressed);
    return () => removeEventListener("keydown", pressed);
  });
}

export function Voices({ me, say }: Given) {
  const asked = { answered: false, order: "asc" };
  const obstacles = useWhole<Obstacle>("obstacles", asked);
  const ideas = useWhole<Idea>("ideas", asked);
  const [sent, setSent] = useState<string[]>([]); // the view shows an answer a moment later
  const [open, setOpen] = useState<string | null>(null);
  const found: Voice[] = [
    ...obstacles.items.map((one): Voice => ({ ...one, what: "obstacle", id: one.obstacle_id })),
    ...ideas.items.map((one): Voice => ({ ...one, what: "idea", id: one.idea_id })),
  ];
  const key = (one: Voice): string => `${one.what} ${one.id}`;
  const waiting = found.filter((one) => one.employee_id !== me.person_id && !sent.includes(key(one))).sort((a, b) => Date.parse(a.time) - Date.parse(b.time));
  const [first] = waiting;
  useKey("o", () => { if (first) setOpen(key(first)); });
  return (
    <Card title="Obstacles and ideas">
      {!obstacles.loaded || !ideas.loaded ? <Pending problem={obstacles.problem ?? ideas.problem} /> : !first ? (
        <Empty title="No obstacle and no idea waits for an answer.">New ones of your people appear here.</Empty>
      ) : (
        <ol class="story" aria-label="Obstacles and ideas">
          {waiting.slice(0, SHOWN).map((one) => (
            <li key={key(one)}>
              <span class="muted">{words(one.what)} of <Person id={one.employee_id} />, {since(one.time)}</span>
              <bdi>{one.text ?? "The words are forgotten."}</bdi>
              {open === key(one) ? <Reply one={one} close={() => setOpen(null)} done={(text) => { setSent([...sent, key(one)]); setOpen(null); say(text); }} /> : (
                <button type="button" onClick={() => setOpen(key(one))}>{one.what === "idea" ? "Decide" : "Answer"}{one === first && <> <kbd>O</kbd></>}</button>
              )}
            </li>
          ))}
        </ol>
      )}
      {waiting.length > SHOWN && <p class="note">{number(waiting.length - SHOWN)} more wait.</p>}
    </Card>
  );
}

/** The form of one answer: words for an obstacle, a decision for an idea. */
function Reply({ one, close, done }: { one: Voice; close: () => void; done: (text: string) => void }) {
  const [text, setText] = useState("");
  const [decision, setDecision] = useState(DECISIONS[0]);
  const [problem, setProblem] = useState<string | null>(null);
  const place = useRef<HTMLFormElement>(null);
  useLayoutEffect(() => place.current?.querySelector<HTMLElement>("input, select")?.focus(), []); // before the next key arrives
  const send = async (): Promise<void> => {
    try {
      await act(`${one.what}s/${encodeURIComponent(one.id)}`, one.what === "idea" ? { decision } : { text });
      done(one.what === "idea" ? `Idea of ${one.employee_id}: ${decision}.` : `Obstacle of ${one.employee_id}: answered.`);
    } catch (failed) { setProblem((failed as Error).message); }
  };
  return (
    <form class="row" ref={place} onSubmit={(event) => { event.preventDefault(); void send(); }} onKeyDown={(event) => { if (event.key === "Escape") close(); }}>
      {one.what === "idea" ? (
        <Field label="Decision"><select value={decision} onChange={(event) => setDecision(event.currentTarget.value as IdeaDecision["decision"])}>
          {DECISIONS.map((name) => <option key={name} value={name}>{words(name)}</option>)}</select></Field>
      ) : (
        <Field label={`Answer to ${one.employee_id}`}><input size={40} required maxLength={2000} value={text} onInput={(event) => setText(event.currentTarget.value)} /></Field>
      )}
      <button class="first">Send</button>
      <button type="button" onClick={close}>Cancel</button>
      {problem && <p class="alert" role="alert">{problem}</p>}
    </form>
  );
}

export function Thank({ me, say }: Given) {
  const { items, loaded, problem: unread } = useWhole<Employee>("employees", {});
  const [receiver, setReceiver] = useState("");
  const [reason, setReason] = useState(REASONS[0]);
  const [problem, setProblem] = useState<string | null>(null);
  const field = useRef<HTMLSelectElement>(null);
  useKey("t", () => field.current?.focus());
  const send = async (): Promise<void> => {
    setProblem(null);
    try {
      await act("recognitions", { receiver_id: receiver, reason });
      say(`${receiver} is thanked: ${reason}.`);
      setReceiver("");
    } catch (failed) { setProblem((failed as Error).message); }
  };
  return (
    <Card title="Thank a person">
      {!loaded ? <Pending problem={unread} /> : (
        <form class="row" onSubmit={(event) => { event.preventDefault(); void send(); }}>
          <label class="field">Person <select ref={field} required value={receiver} onChange={(event) => setReceiver(event.currentTarget.value)}>
            <option value="">choose</option>
            {items.filter((one) => one.employee_id !== me.person_id && !one.left).map((one) => (
              <option key={one.employee_id} value={one.employee_id}>{one.name ? `${one.name}, ${one.employee_id}` : one.employee_id}</option>
            ))}</select></label>
          <Field label="Reason"><select value={reason} onChange={(event) => setReason(event.currentTarget.value as Thanks["reason"])}>
            {REASONS.map((name) => <option key={name} value={name}>{words(name)}</option>)}</select></Field>
          <button class="first">Thank</button><span class="muted">begin <kbd>T</kbd></span>
          {problem && <p class="alert" role="alert">{problem}</p>}
        </form>
      )}
    </Card>
  );
}
