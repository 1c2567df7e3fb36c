// An employee: the name that their source gave, where the reader sees them, and the id.
import { useEffect, useReducer } from "preact/hooks";
import { read } from "../api";
import type { EmployeeNames } from "../api";

/** The names by id, as far as they were looked up; null where there is none. */
const names = new Map<string, string | null>();
const listeners = new Set<() => void>();
let wanted: string[] = [];
/** A query parameter has at most 2,000 characters. */
const CHARACTERS = 1_500;

/** Looks up the names of all ids that were drawn since the last time, in few requests. */
async function lookUp(): Promise<void> {
  const ids = wanted;
  wanted = [];
  while (ids.length) {
    const some: string[] = [];
    do some.push(ids.pop() as string); while (ids.length && JSON.stringify([...some, ids.at(-1)]).length < CHARACTERS);
    try {
      const found = await read<EmployeeNames>("names", { ids: JSON.stringify(some) });
      for (const one of found.items) names.set(one.employee_id, one.name);
    } catch { for (const id of some) names.delete(id); } // it is looked up again when it is drawn again
  }
  for (const tell of listeners) tell();
}

export const forgetNames = (): void => names.clear();

function useName(id: string): string | null {
  const [, redraw] = useReducer((turn: number) => turn + 1, 0);
  useEffect(() => {
    const tell = (): void => redraw(null as never);
    listeners.add(tell);
    if (!names.has(id)) {
      names.set(id, null);
      if (!wanted.length) setTimeout(() => void lookUp());
      wanted.push(id);
    }
    return () => { listeners.delete(tell); };
  }, [id]);
  return names.get(id) ?? null;
}

/** The subject of a case or a flag, such as `agent:A-7` or `customer:C-9`. */
export function Subject({ of }: { of: string }) {
  const [kind = "", ...rest] = of.split(":");
  const id = rest.join(":");
  return kind === "agent" && !id.startsWith("~") ? <Person id={id} /> : <bdi>{kind} <span class="number">{id}</span></bdi>;
}

export function Person({ id, ai }: { id: string; ai?: boolean }) {
  const name = useName(id);
  return <bdi>{name && `${name}, `}<span class="number">{id}</span>{ai ? " (AI)" : ""}</bdi>;
}
