// Requests to the API. What a page reads is kept once for all its parts, and read again when a view behind it has changed.
import { useEffect, useReducer } from "preact/hooks";
import type { components } from "./api.d";
import type { Items } from "./types";

export type Me = components["schemas"]["Caller"];
export type Obstacle = components["schemas"]["ObstacleRow"];
export type Idea = components["schemas"]["IdeaRow"];
export type IdeaDecision = components["schemas"]["IdeaDecision"];
export type Thanks = components["schemas"]["Thanks"];
export type EmployeeNames = components["schemas"]["EmployeeNames"];
export type Access = components["schemas"]["AccessRow"];
export type CheckpointRow = components["schemas"]["CheckpointRow"];
export type LimitWhatIf = components["schemas"]["LimitWhatIfAnswer"];
export type LimitChange = components["schemas"]["LimitChange"];
export type Proposal = components["schemas"]["ProposalState"];
export type PolicyVersion = components["schemas"]["PolicyVersion"];
export type UnusedAuthority = components["schemas"]["UnusedAuthorityAnswer"];
export type AuthorityNow = components["schemas"]["AuthorityAnswer"];
export type ThanksRow = components["schemas"]["ThanksRow"];
export type OpenSession = components["schemas"]["SessionRow"];
export type SessionState = components["schemas"]["SessionState"];
type Decision = components["schemas"]["Answer"];
export type Query = Record<string, string | number | boolean | null | undefined>;

export class Problem extends Error {
  constructor(readonly status: number, detail: string) { super(detail); }
}

export function address(path: string, query: Query = {}): string {
  const pairs = Object.entries(query).filter(([, value]) => value !== "" && value != null);
  const text = new URLSearchParams(pairs.map(([name, value]) => [name, String(value)])).toString();
  return `/api/v1/${path}${text ? `?${text}` : ""}`;
}

let onSignedOut = (): void => undefined;
export const whenSignedOut = (then: () => void): void => { onSignedOut = then; };

async function answerOf(response: Response): Promise<unknown> {
  const body = await response.json().catch(() => ({})) as { detail?: string };
  if (response.status === 401) onSignedOut();
  if (!response.ok) throw new Problem(response.status, body.detail ?? `The ledger answered ${response.status}.`);
  return body;
}

export async function read<T>(path: string, query: Query = {}): Promise<T> {
  return await answerOf(await fetch(address(path, query), { headers: { Accept: "application/json" } })) as T;
}

/** Sends a command in the name of the signed-in person. */
export async function act<T>(path: string, body: unknown): Promise<T> {
  const response = await fetch(`/api/v1/${path}`, {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
  });
  return await answerOf(response) as T;
}

export const decide = (id: string, decision: Decision): Promise<{ outcome: string; status?: string; reasons?: { message: string }[] }> =>
  act(`escalations/${encodeURIComponent(id)}`, decision);

export async function signIn(token: string): Promise<void> {
  const response = await fetch("/api/v1/session", {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ token }),
  });
  if (!response.ok) throw new Problem(response.status, ((await response.json()) as { detail: string }).detail);
}
export const signOut = (): Promise<Response> => fetch("/api/v1/session", { method: "DELETE" });
/** Whether this browser is signed in; throws a Problem where the ledger cannot tell. */
export const isSignedIn = async (): Promise<SessionState> => read<SessionState>("session");
export async function endSession(id: string): Promise<void> {
  const response = await fetch(`/api/v1/sessions/${id}`, { method: "DELETE" });
  if (!response.ok) await answerOf(response);
}

/** The views behind each path, and the shortest time between two reads: a change of another view does not concern its readers. */
const VIEWS: [RegExp, string[], number][] = [
  [/^(actions|escalations)/, ["casework"], 0],
  [/^balances/, ["budget_balances"], 0],
  [/^authority/, ["budget_balances", "people"], 1_000],
  [/^(cases|flags)/, ["flags"], 0],
  [/^employees/, ["people"], 60_000],
  [/^(ideas|obstacles|thanks)/, ["people"], 5_000],
  [/^(accesses|trail)/, ["audit_trail"], 0],
  [/^unused-authority/, ["budget_balances", "people"], 60_000],
  [/^summary/, ["casework", "journeys", "budget_balances"], 5_000],
  [/^beyond-authority/, ["authority"], 5_000],
  [/^consistency/, ["casework"], 5_000],
  [/^gap/, ["authority"], 15_000],
  [/^quality/, ["journeys"], 15_000],
  [/^loyalty/, ["loyalty_effects"], 60_000],
];

/** Whether the ledger may record each read as an event: following the log would then read, and record, for ever. */
const isRecorded = (path: string, query: Query): boolean =>
  /^(explain|escalations)\//.test(path) || path === "trail" && ["agent", "customer", "action", "interaction"].some((name) => query[name]);

/** The position that each view has announced. */
const announced = new Map<string, number>();

interface Entry {
  path: string; query: Query; whole: boolean; views: string[]; pause: number; readAt: number; busy: boolean;
  /** The state that the data shows: an announced position beyond it makes the data old. -1: never read, or a command has changed it. */
  position: number;
  reading: Promise<void> | null; data: unknown; problem: string | null; tag: string | null; listeners: Set<() => void>;
}
const entries = new Map<string, Entry>();
const newest = (one: Entry): number => Math.max(0, ...one.views.map((view) => announced.get(view) ?? 0));
const isOld = (one: Entry): boolean => one.position < newest(one);
const due = (): Entry[] => [...entries.values()].filter((one) => one.listeners.size && !one.busy && isOld(one));

const keyOf = (path: string, query: Query, whole: boolean): string => `${whole ? "whole " : ""}${address(path, query)}`;

function entryOf(path: string, query: Query, whole = false): Entry {
  const key = keyOf(path, query, whole);
  let entry = entries.get(key);
  if (!entry) {
    const [, views, pause] = VIEWS.find(([pattern]) => pattern.test(path)) ?? [/^/, [], 0];
    entry = { path, query, whole, views: query.as_of || isRecorded(path, query) ? [] : views, pause, readAt: 0, position: -1, busy: false, reading: null, data: null, problem: null, tag: null, listeners: new Set() };
    entries.set(key, entry);
    for (const [old, one] of entries) { // keeps what was read lately, for the way back
      if (entries.size <= 40) break;
      if (!one.listeners.size && old !== key) entries.delete(old);
    }
  }
  return entry;
}

function load(entry: Entry): Promise<void> {
  entry.reading = fetchInto(entry).finally(() => { entry.reading = null; });
  return entry.reading;
}

async function fetchInto(entry: Entry): Promise<void> {
  entry.busy = true;
  entry.position = newest(entry); // what was announced before the request is in the answer, unless the answer says otherwise
  try {
    const isDone = await (entry.whole ? readList(entry) : readOne(entry));
    const { position, lag_seconds: lag } = entry.data as { position?: number; lag_seconds?: number };
    if (position !== undefined && lag !== undefined && entry.position >= 0) entry.position = position; // a kept report may be older
    if (!isDone) entry.position = -1; // it is read again when it is opened again
    entry.problem = null;
  } catch (problem) {
    entry.problem = (problem as Error).message;
  }
  entry.busy = false;
  entry.readAt = Date.now();
  for (const tell of entry.listeners) tell();
  if (entry.listeners.size && isOld(entry)) plan();
}

async function readOne(entry: Entry): Promise<true> {
  const headers: Record<string, string> = { Accept: "application/json" };
  if (entry.tag) headers["If-None-Match"] = entry.tag;
  const response = await fetch(address(entry.path, entry.query), { headers, cache: "no-store" });
  if (response.status !== 304) {
    entry.data = await answerOf(response);
    entry.tag = response.headers.get("ETag");
  }
  return true;
}

/** The answer of a path: the one that the page holds, where it would not read it again yet, else a new one. */
export async function readKept<T>(path: string, query: Query = {}): Promise<T> {
  const entry = entryOf(path, query);
  const kept = entry.data !== null && entry.problem === null && entry.views.length > 0 && (!isOld(entry) || Date.now() - entry.readAt < entry.pause);
  if (!kept) await (entry.reading ?? load(entry));
  if (entry.problem !== null) throw new Error(entry.problem);
  return entry.data as T;
}

/** Rounds of reading again are far enough apart that they cost at most 1.5 requests and 7 kB a second. */
let next = 0;
let timer: ReturnType<typeof setTimeout> | null = null;

function round(): void {
  timer = null;
  if (document.hidden) return;
  const now = Date.now();
  const ready = due().filter((one) => now - one.readAt >= one.pause);
  performance.clearResourceTimings();
  void Promise.all(ready.map(load)).then(() => {
    const bytes = performance.getEntriesByType("resource").reduce((sum, one) => sum + (one as PerformanceResourceTiming).transferSize, 0);
    next = Math.max(next, Date.now() + Math.max(1_000, ready.length * 700, bytes / 7));
    if (due().length) plan();
  });
}

function plan(): void {
  if (timer) clearTimeout(timer); // it may wait for a path that is read less often
  timer = setTimeout(round, Math.max(0, next - Date.now(), entriesWait()));
}

function entriesWait(): number {
  const waits = due().map((one) => one.readAt + one.pause - Date.now());
  return waits.length ? Math.min(...waits) : 0;
}

/** Notes that a view has read up to a position, and reads again soon what is older. */
export function viewChanged(view: string, position: number): void {
  announced.set(view, position);
  if (due().length) plan();
}

/** Reads paths that start so at once, after a command of this reader. */
export function refresh(...paths: string[]): void {
  for (const one of entries.values()) {
    if (!paths.some((path) => one.path.startsWith(path))) continue;
    one.position = -1;
    one.tag = null;
    if (one.listeners.size && !one.busy) void load(one);
  }
}

/** Reads again what could not be read, once the ledger can be reached. */
export function readFailedAgain(): void {
  for (const one of entries.values()) if (one.problem !== null && one.listeners.size && !one.busy) void load(one);
}
addEventListener("visibilitychange", () => { if (!document.hidden) plan(); });

/** The answer of a path as it is now; `null` in place of a path reads nothing. */
export const useRead = <T>(path: string | null, query: Query = {}): { data: T | null; problem: string | null } => useEntry<T>(path, query, false);

function useEntry<T>(path: string | null, query: Query, whole: boolean): { data: T | null; problem: string | null } {
  const [, redraw] = useReducer((turn: number) => turn + 1, 0);
  const key = path === null ? null : keyOf(path, query, whole);
  useEffect(() => {
    if (path === null) return undefined;
    const entry = entryOf(path, query, whole);
    const tell = (): void => redraw(null as never);
    entry.listeners.add(tell);
    const followed = entry.views.length > 0 || Date.now() - entry.readAt < 10_000; // else it is read when it is opened
    if ((isOld(entry) || !followed) && !entry.busy) void load(entry);
    if (entry.data !== null || entry.problem !== null) tell(); // it may have arrived between the drawing and this effect
    return () => { entry.listeners.delete(tell); };
  }, [key]);
  const entry = key === null ? undefined : entries.get(key);
  return { data: (entry?.data ?? null) as T | null, problem: entry?.problem ?? null };
}

/** The most rows that a list is read to, and those of one page of it. */
export const MOST_ROWS = 20_000;
const MOST_OF_A_PAGE = 1000;

export interface Whole<T> { items: T[]; next: number | string | null; total: number | null; problem: string | null; loaded: boolean }

/** A list read to its end, page by page, so that its total is exact; `next` is not null where it is longer, or not yet read to its end. */
export function useWhole<T>(path: string, query: Query): Whole<T> {
  const { data, problem } = useEntry<Items<T>>(path, query, true);
  return { items: data?.items ?? [], next: data?.next ?? null, total: data?.total ?? null, problem, loaded: data !== null };
}

type Row = Record<string, unknown>;
/** Where a list changed behind what was read of it, as the ledger tells it; a row keeps its place in the list. */
const CHANGES: Record<string, (old: Items<Row>) => Query> = {
  actions: (old) => ({ changed_after: old.position }),
  escalations: (old) => ({ changed_after: old.position }),
  accesses: (old) => ({ order: "asc", after: Math.max(0, ...old.items.map((row) => Number(row.position))) }), // none ever changes
};

/** Reads a list: the changes of one that was read to its end before, else all of it; returns false where its reader left meanwhile. */
async function readList(entry: Entry): Promise<boolean> {
  const old = entry.data as Items<Row> | null;
  const changed = CHANGES[entry.path];
  const isWhole = old && (old.next === null || old.items.length >= MOST_ROWS);
  if (isWhole && changed && !entry.query.as_of) { // the past has no changes
    const changes = await read<Items<Row>>(entry.path, { ...entry.query, limit: MOST_OF_A_PAGE, count: true, ...changed(old) });
    const list = withChanges(old, changes, entry.query.order === "asc" ? 1 : -1);
    if (list) { entry.data = list; return true; }
  }
  const pageOf = (more: Query): Promise<Items<Row>> => read<Items<Row>>(entry.path, { ...entry.query, limit: MOST_OF_A_PAGE, ...more });
  let list = await pageOf({});
  while (list.next !== null && list.items.length < MOST_ROWS) {
    if (!old) { // the first rows are shown while the others are read
      entry.data = list;
      for (const tell of entry.listeners) tell();
    }
    if (!entry.listeners.size) return false;
    const page = await pageOf({ after: list.next, ...(list.total == null ? { count: true } : {}) }); // the first page does not wait for a total
    list = { ...list, items: [...list.items, ...page.items], next: page.next, total: list.total ?? page.total ?? null };
  }
  entry.data = list;
  return true;
}

/** A list with the changes behind its position; `null` where these do not explain its total, as where a row has left it. */
function withChanges(old: Items<Row>, changes: Items<Row>, order: 1 | -1): Items<Row> | null {
  const before = old.next === null ? old.items.length : old.total;
  if (changes.next !== null || changes.total == null || before == null) return null;
  const rows = new Map(old.items.map((row) => [row.position, row]));
  const added = changes.items.filter((row) => !rows.has(row.position)).length;
  if (changes.total !== before + added) return null;
  for (const row of changes.items) rows.set(row.position, row);
  const items = changes.items.length ? [...rows.values()].sort((a, b) => order * (Number(a.position) - Number(b.position))) : old.items;
  return { ...changes, items, next: old.next };
}

export const forgetAll = (): void => entries.clear();
