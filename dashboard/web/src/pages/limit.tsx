// Another limit of one action: its effect in a replay of history, its trial, and its proposal with that effect as evidence.
// What changes the authority of people is shown as a change of the policy before it is sent.
import { render } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { act, read } from "../api";
import type { LimitChange, LimitWhatIf } from "../api";
import { Field } from "../components/controls";
import { amounts, decimal, duration, money, number, time } from "../format";
import type { Money, Viewer } from "../types";
import { ChangeList } from "./evidence";

interface Limited { role: string; kind: string; currency: string; limit: Money | null; today: Money | null }
interface Answer { status?: string | null; missing?: number | null; policy_version?: number | null }
type Mode = "shadow" | "trial" | "enforced";
const DONE: Record<Mode, string> = { shadow: "In the shadow", trial: "Trial for randomly chosen teams", enforced: "New limit with its evidence" };
const AMOUNT = /^\d{1,12}(\.\d{1,3})?$/;

function OtherLimit({ one, me }: { one: Limited; me: Viewer }) {
  const [amount, setAmount] = useState((one.limit ?? one.today)?.amount ?? "");
  const [effect, setEffect] = useState<{ of: string; found: LimitWhatIf } | null>(null);
  const [said, say] = useState("");
  const [busy, setBusy] = useState(false);
  const [asked, ask] = useState<Asked | null>(null);
  const mayTry = me.role !== "auditor";
  const run = async (then: () => Promise<string>, meanwhile = "Replaying history…"): Promise<void> => {
    if (busy) return;
    if (!AMOUNT.test(amount.trim())) { say(`Write an amount in ${one.currency} such as 45.00: digits, and a point before the last ones.`); return; }
    setBusy(true);
    say(meanwhile);
    try { say(await then()); } catch (failed) { say((failed as Error).message); }
    setBusy(false);
  };
  const look = async (): Promise<string> => {
    const found = await read<LimitWhatIf>("what-if", { role: one.role, kind: one.kind, amount: `${amount.trim()} ${one.currency}` });
    setEffect({ of: amount, found });
    return "";
  };
  const limit = { role: one.role, kind: one.kind };
  const confirm = (mode: Mode) => async (): Promise<string> => {
    ask({ mode, of: amount, change: await read<LimitChange>("policies/change", { mode, ...limit, amount: `${amount.trim()} ${one.currency}` }) });
    return "";
  };
  const start = (mode: Mode, replaces: number | null) => async (): Promise<string> => {
    ask(null);
    const answer = await act<Answer>("policies", { mode, ...limit, amount: { amount: amount.trim(), currency: one.currency }, replaces });
    return answer.status === "proposed" ? `${DONE[mode]}: proposed, and needs ${number(answer.missing ?? 0)} more approvals.` : `${DONE[mode]}: version ${String(answer.policy_version)} of the policy.`;
  };
  const unsure = asked?.of === amount ? asked : null;
  const shown = effect?.of === amount ? effect.found : null;
  return (
    <form class="act" aria-label={`Another limit, ${one.kind} for ${one.role}`} onSubmit={(event) => { event.preventDefault(); void run(look); }}>
      <div class="row">
        <Field label={`Limit in ${one.currency}`}><input size={8} required inputMode="decimal" value={amount} onInput={(event) => { setAmount(event.currentTarget.value); say(""); }} /></Field>
        <button class="first" aria-disabled={busy}>What if</button>
        {mayTry && <button type="button" aria-disabled={busy} onClick={() => void run(start("shadow", null))}>Try in the shadow</button>}
        {me.role === "operator" && <button type="button" aria-disabled={busy} onClick={() => void run(confirm("trial"), "")}>Try by lot</button>}
        {mayTry && shown && <button type="button" aria-disabled={busy} onClick={() => void run(confirm("enforced"), "")}>Enforce with this evidence</button>}
      </div>
      {unsure && <Confirm of={unsure} busy={busy} then={() => void run(start(unsure.mode, unsure.change.replaces))} cancel={() => ask(null)} />}
      {shown && <Effect of={shown} />}
      <p role="status" class="answer">{said}</p>
    </form>
  );
}

/** A change of the policy that waits for a yes, and the amount that it was asked for. */
interface Asked { mode: Mode; of: string; change: LimitChange }

function Confirm({ of: { mode, change }, busy, then, cancel }: { of: Asked; busy: boolean; then: () => void; cancel: () => void }) {
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => heading.current?.focus(), [change]);
  const verb = change.proposed ? "Propose" : "Publish";
  return (
    <section class="card" aria-label="Change of the policy">
      <h3 tabIndex={-1} ref={heading}>{verb} this change of the policy?</h3>
      <ChangeList changes={change.changes} />
      <p class="note">{DONE[mode]}. {change.proposed
        ? `It needs approvals before it is published, and begins ${time(change.effective_from)} at the earliest.`
        : "It is published at once, without another person's approval."}</p>
      <div class="row">
        <button type="button" class="first" aria-disabled={busy} onClick={then}>{verb}</button>
        <button type="button" onClick={cancel}>Cancel</button>
      </div>
    </section>
  );
}

export function Effect({ of }: { of: LimitWhatIf }) {
  const days = of.days >= 1 ? `${decimal(of.days)} days` : duration(of.days * 86_400);
  return (
    <>
      <dl class="facts">
        <dt>Limit</dt><dd>{money(of.limit)}{of.today ? `, today ${money(of.today)}` : ""}</dd>
        <dt>Replayed</dt><dd>{number(of.decisions)} decisions in {days}, as of position {number(of.position)}</dd>
        <dt>Given at once</dt><dd>{number(of.given_at_once)} more</dd>
        <dt>Escalations spared</dt><dd>{number(of.escalations_spared)}{of.monthly == null ? "" : `, ${decimal(of.monthly)} a month`}{of.would_have_saved ? `, ${money(of.would_have_saved)} of working time` : ""}; {duration(of.hours_not_waited * 3600)} not waited</dd>
        <dt>Had no approval</dt><dd>{money(of.not_approved)}</dd>
        <dt>Would need an approval</dt><dd>{number(of.would_escalate)} given actions, {amounts([of.would_escalate_amount])}</dd>
      </dl>
      <p class="note">{of.caveats.join("; ")}.</p>
    </>
  );
}

/** The form as an element. */
export function otherLimit(one: Limited, me: Viewer): HTMLElement {
  const place = document.createElement("div");
  render(<OtherLimit one={one} me={me} />, place);
  return place;
}
