// The address of what is looked at: `#/page?filters`. It stays in the browser, so that no id reaches a server's log.
import { useEffect, useReducer } from "preact/hooks";

export interface Place { page: string; query: Record<string, string> }
const KEPT = ["from", "to", "tz", "as_of"];
/** The pages that can show a past state. Others show the present, and their links open the present. */
const OF_THE_PAST = ["actions", "escalations", "budgets", "spending", "trail", "accesses", "cases", "gap", "value", "recognition"];
export const showsThePast = (page: string): boolean => OF_THE_PAST.includes(page);

export function placeOf(hash: string): Place {
  const [path = "", query = ""] = hash.replace(/^#\/?/, "").split("?");
  return { page: path, query: Object.fromEntries(new URLSearchParams(query)) };
}
export const here = (): Place => placeOf(location.hash);

export function link(page: string, query: Record<string, string | null | undefined> = {}): string {
  const from = here();
  const kept = Object.fromEntries(Object.entries(from.query).filter(([name]) => KEPT.includes(name) && (name !== "as_of" || showsThePast(from.page))));
  const pairs = Object.entries({ ...kept, ...query }).filter(([, value]) => value) as [string, string][];
  const text = new URLSearchParams(pairs).toString();
  return `#/${page}${text ? `?${text}` : ""}`;
}

/** Changes filters of the present page; an empty value removes one. */
export function change(query: Record<string, string | null>): void {
  const { page, query: now } = here();
  const cleared = Object.fromEntries(Object.keys(now).map((name) => [name, null as string | null]));
  location.hash = link(page, { ...cleared, ...now, ...query });
}

export function usePlace(): Place {
  const [, redraw] = useReducer((turn: number) => turn + 1, 0);
  useEffect(() => {
    const tell = (): void => redraw(null as never);
    addEventListener("hashchange", tell);
    return () => removeEventListener("hashchange", tell);
  }, []);
  return here();
}
