// Money, dates and numbers in the reader's locale.
import type { Money, Share } from "./types";

const whole = new Intl.NumberFormat();
const hundredth = new Intl.NumberFormat(undefined, { maximumFractionDigits: 2 });
const tenth = new Intl.NumberFormat(undefined, { maximumFractionDigits: 1 });
const percentage = new Intl.NumberFormat(undefined, { style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 });
const moment = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const fullDayOf = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeZone: "UTC" });
const ago = new Intl.RelativeTimeFormat(undefined, { numeric: "auto" });
const days = new Map<string, Intl.DateTimeFormat>();
const currencies = new Map<string, Intl.NumberFormat>();

export const number = (value: number): string => whole.format(value);
export const decimal = (value: number): string => tenth.format(value);
export const fine = (value: number): string => hundredth.format(value);
export const percent = (value: number | null | undefined): string => (value == null ? "–" : percentage.format(value));
export const time = (text: string | null | undefined): string => (text ? moment.format(new Date(text)) : "");
/** A day such as `2026-11-21` with its year. */
export const fullDay = (text: string): string => (Number.isNaN(Date.parse(text)) ? text : fullDayOf.format(new Date(text)));

/** The day of the year, such as "21 Nov", of a day `2026-11-21`, or of a time in a time zone. */
export function day(text: string, zone = "UTC"): string {
  let format = days.get(zone);
  if (!format) {
    format = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", timeZone: zone });
    days.set(zone, format);
  }
  return format.format(new Date(text));
}

const month = new Intl.DateTimeFormat(undefined, { month: "long", year: "numeric", timeZone: "UTC" });
/** A period in words: `2026-11` reads "November 2026", `2026-Q4` "Q4 2026", `2026-W47` "week 47 of 2026". */
export function period(name: string): string {
  const [year = "", part = ""] = name.split("-");
  if (part.startsWith("W")) return `week ${Number(part.slice(1))} of ${year}`;
  if (part.startsWith("Q")) return `${part} ${year}`;
  return name.length === 7 ? month.format(new Date(`${name}-01`)) : fullDay(name);
}

export function money(value: Money | null | undefined): string {
  if (!value) return "–";
  let format = currencies.get(value.currency);
  if (!format) {
    format = new Intl.NumberFormat(undefined, { style: "currency", currency: value.currency });
    currencies.set(value.currency, format);
  }
  return format.format(Number(value.amount));
}

/** Amounts of several currencies, which are never added. */
export const amounts = (values: (Money | null)[]): string => values.map(money).join(" · ") || "–";

/** A share with its 95 % interval, for the text below a figure. */
export function interval(share: Share | null | undefined): string {
  if (share?.share == null || !share.interval) return "none yet";
  return `${percent(share.interval[0])} to ${percent(share.interval[1])}, n\u00a0=\u00a0${number(share.n)}`;
}

/** The 95 % interval of an average and its n, for the text beside a figure; few values have no interval. */
export const intervalOf = <T>(ends: [T, T] | null, text: (end: T) => string, n: number): string =>
  `${ends ? `${text(ends[0])} to ${text(ends[1])}, ` : ""}n\u00a0=\u00a0${number(n)}`;
export const hoursInterval = (ends: [number, number] | null, n: number): string => intervalOf(ends, (hours) => duration(hours * 3600), n);

export function duration(seconds: number | null | undefined): string {
  if (seconds == null) return "–";
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172_800) return `${tenth.format(seconds / 3600)} h`;
  return `${Math.round(seconds / 86_400)} days`;
}

export function since(text: string): string {
  const seconds = (Date.parse(text) - Date.now()) / 1000;
  const size = Math.abs(seconds);
  if (size < 5400) return ago.format(Math.round(seconds / 60), "minute");
  if (size < 172_800) return ago.format(Math.round(seconds / 3600), "hour");
  return ago.format(Math.round(seconds / 86_400), "day");
}

/** A code of the log as words: `fee_waiver` reads "Fee waiver". */
export function words(code: string | null | undefined): string {
  const text = (code ?? "").replaceAll("_", " ");
  return text.charAt(0).toUpperCase() + text.slice(1);
}
