// Filters, dates, and fields of forms. Filters and dates live in the address.
import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import { change, usePlace } from "../url";

export function Field({ label, children }: { label: string; children: ComponentChildren }) {
  return <label class="field">{label}{children}</label>;
}

/** Whether a key belongs to a field that the reader types in, or to the browser. */
export function isTyping(event: KeyboardEvent): boolean {
  const at = event.target;
  return event.ctrlKey || event.metaKey || event.altKey || (at instanceof HTMLElement && at.matches("input, textarea, select"));
}

const DAY = 86_400_000;
const iso = (at: number): string => new Date(at).toISOString().slice(0, 10);
const PRESETS: [string, number][] = [["7 days", 7], ["30 days", 30], ["90 days", 90]];

/** The chosen days: those of the address, else the last thirty up to the newest day with data. */
export function useRange(newest: string | null): { from: string; to: string } {
  const { from, to } = usePlace().query;
  const last = to || (newest ?? new Date().toISOString()).slice(0, 10);
  return { from: from || iso(Date.parse(last) - 29 * DAY), to: last };
}

/** Dates of a page: presets, two days, and the time zone of days. */
export function Dates({ from, to, zone, newest }: { from: string; to: string; zone: string | null; newest: string | null }) {
  const last = (newest ?? new Date().toISOString()).slice(0, 10);
  const days = Math.round((Date.parse(to) - Date.parse(from)) / DAY) + 1;
  return (
    <div class="tools">
      <span class="group" role="group" aria-label="Days">
        {PRESETS.map(([name, length]) => (
          <button key={name} type="button" aria-pressed={days === length && to === last}
            onClick={() => change({ from: iso(Date.parse(last) - (length - 1) * DAY), to: last })}>{name}</button>
        ))}
      </span>
      <input type="date" aria-label="From" value={from} max={to} onChange={(event) => change({ from: event.currentTarget.value, to })} />
      <input type="date" aria-label="To" value={to} min={from} onChange={(event) => change({ from, to: event.currentTarget.value })} />
      {zone && <span class="muted" data-tip="Days begin at midnight in this time zone, which the policy names.">{zone}</span>}
    </div>
  );
}

const isDay = (name: string): boolean => name === "from" || name === "to";

/** The kinds of dates that a list may be limited by, and the example in a field. */
const CHOICES: Record<string, string[]> = { by_time: ["recorded"] };
const WITHOUT: Record<string, string> = { by_time: "happened" };
const EXAMPLES: Record<string, string> = { amount: "45.00 GBP" };

/** Filters of a list as fields; each change is in the address at once. */
export function Filters({ names, choices: own = {} }: { names: Record<string, string>; choices?: Record<string, string[]> }) {
  const { query } = usePlace();
  const choices = { ...CHOICES, ...own };
  return (
    <form class="row" role="search" onSubmit={(event) => event.preventDefault()}>
      {Object.entries(names).map(([name, label]) => (
        <Field key={name} label={label}>
          {choices[name] ? (
            <select value={query[name] ?? ""} onChange={(event) => change({ [name]: event.currentTarget.value })}>
              <option value="">{WITHOUT[name] ?? "all"}</option>
              {choices[name].map((one) => <option key={one} value={one}>{one.replaceAll("_", " ")}</option>)}
            </select>
          ) : (
            isDay(name)
              ? <input type="date" value={(query[name] ?? "").slice(0, 10)} onChange={(event) => change({ [name]: event.currentTarget.value })} />
              : <input size={12} placeholder={EXAMPLES[name]} value={query[name] ?? ""} onChange={(event) => change({ [name]: event.currentTarget.value.trim() })} />
          )}
        </Field>
      ))}
      {Object.keys(names).some((name) => query[name]) && (
        <button type="button" onClick={() => change(Object.fromEntries(Object.keys(names).map((name) => [name, null])))}>Clear</button>
      )}
    </form>
  );
}

/** The moment that lists show: now, or a past state as it was recorded then. */
export function Moment() {
  const { query } = usePlace();
  const [text, setText] = useState(query.as_of ?? "");
  const past = query.as_of;
  return (
    <form class="row" onSubmit={(event) => { event.preventDefault(); change({ as_of: text ? instant(text) : null }); }}>
      <Field label="As recorded by">
        <input type="datetime-local" step={1} value={localTime(text)} onInput={(event) => setText(event.currentTarget.value)} />
      </Field>
      <button>Show</button>
      {past && <button type="button" onClick={() => { setText(""); change({ as_of: null }); }}>Now</button>}
    </form>
  );
}
const instant = (text: string): string => (Number.isNaN(Date.parse(text)) ? text : new Date(text).toISOString());
function localTime(text: string): string {
  const at = new Date(text);
  if (!text || Number.isNaN(at.getTime()) || /^\d+$/.test(text)) return "";
  return new Date(at.getTime() - at.getTimezoneOffset() * 60_000).toISOString().slice(0, 19);
}
export const KINDS = ["refund", "credit", "discount", "replacement", "keep_item", "fee_waiver", "upgrade", "gift", "fix", "other"];
