// Filters, dates, and fields of forms. Filters and dates live in the address.
import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import { fullDay, time } from "../format";
import { change, usePlace } from "../url";

export function Field({ label, children }: { label: string; children: ComponentChildren }) {
  return <label class="field">{label}{children}</label>;
}

/** Whether a key belongs to a field that the reader types in, or to the browser. */
export function isTyping(event: KeyboardEvent): boolean {
  const at = event.target;
  return event.ctrlKey || event.metaKey || event.altKey || (at instanceof HTMLElement && at.matches("input, textarea, select"));
}

/** A field for a day, or with `moment` for a time. Browsers write dates in the order of their own language; this one shows them in the reader's. */
function DateField({ moment = false, label, value, max, min, onChange, onInput }: {
  moment?: boolean; label?: string; value: string; max?: string; min?: string; onChange?: (value: string) => void; onInput?: (value: string) => void;
}) {
  return (
    <span class="date">
      <input type={moment ? "datetime-local" : "date"} {...(moment ? { step: 1 } : {})} aria-label={label} value={value} max={max} min={min}
        onChange={(event) => onChange?.(event.currentTarget.value)} onInput={(event) => onInput?.(event.currentTarget.value)} />
      <span aria-hidden="true">{!value ? "any" : moment ? time(value) : fullDay(value)}</span>
    </span>
  );
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

/** The last whole week, Monday to Sunday, up to a day. */
function lastWeek(last: string): { from: string; to: string } {
  const at = Date.parse(last);
  const sunday = at - new Date(at).getUTCDay() * DAY;
  return { from: iso(sunday - 6 * DAY), to: iso(sunday) };
}

/** Dates of a page: presets, two days, and the time zone of days. */
export function Dates({ from, to, zone, newest }: { from: string; to: string; zone: string | null; newest: string | null }) {
  const last = (newest ?? new Date().toISOString()).slice(0, 10);
  const week = lastWeek(last);
  const days = Math.round((Date.parse(to) - Date.parse(from)) / DAY) + 1;
  return (
    <div class="tools">
      <span class="group" role="group" aria-label="Days">
        <button type="button" aria-pressed={from === week.from && to === week.to} onClick={() => change(week)}>Last week</button>
        {PRESETS.map(([name, length]) => (
          <button key={name} type="button" aria-pressed={days === length && to === last}
            onClick={() => change({ from: iso(Date.parse(last) - (length - 1) * DAY), to: last })}>{name}</button>
        ))}
      </span>
      <DateField label="From" value={from} max={to} onChange={(day) => change({ from: day, to })} />
      <DateField label="To" value={to} min={from} onChange={(day) => change({ from, to: day })} />
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
              ? <DateField value={(query[name] ?? "").slice(0, 10)} onChange={(day) => change({ [name]: day })} />
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
        <DateField moment value={localTime(text)} onInput={setText} />
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
