// The address of what is looked at: `#/page/id?filters`. It stays in the browser, so that no id reaches a server's log.
import { useEffect, useReducer } from "preact/hooks";

export interface Place { page: string; id: string; query: Record<string, string> }
const KEPT = ["from", "to", "tz", "as_of"];

export function placeOf(hash: string): Place {
  const [path = "", query = ""] = hash.replace(/^#\/?/, "").split("?");
  const [page = "", ...rest] = path.split("/");
  return { page, id: decodeURIComponent(rest.join("/")), query: Object.fromEntries(new URLSearchParams(query)) };
}
export const here = (): Place => placeOf(location.hash);

export function link(page: string, query: Record<string, string | null | undefined> = {}, id = ""): string {
  const kept = Object.fromEntries(Object.entries(here().query).filter(([name]) => KEPT.includes(name)));
  const pairs = Object.entries({ ...kept, ...query }).filter(([, value]) => value) as [string, string][];
  const text = new URLSearchParams(pairs).toString();
  return `#/${page}${id ? `/${encodeURIComponent(id)}` : ""}${text ? `?${text}` : ""}`;
}

/** Changes filters of the present page; an empty value removes one. */
export function change(query: Record<string, string | null>): void {
  const { page, id, query: now } = here();
  const cleared = Object.fromEntries(Object.keys(now).map((name) => [name, null as string | null]));
  location.hash = link(page, { ...cleared, ...now, ...query }, id);
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
