// An employee: the name that their source gave, where the reader sees them, and the id.
import { useRead } from "../api";
import type { Employee, Items } from "../types";

const known = new WeakMap<object, Map<string, string>>();

/** The names of the employees that the reader sees, and of their managers, by id. */
function namesOf(data: Items<Employee>): Map<string, string> {
  let names = known.get(data);
  if (!names) {
    const pairs = data.items.flatMap((one): [string | null, string | null][] => [[one.manager_id, one.manager_name], [one.employee_id, one.name]]);
    names = new Map(pairs.filter((pair): pair is [string, string] => Boolean(pair[0] && pair[1])));
    known.set(data, names);
  }
  return names;
}

export function Person({ id, ai }: { id: string; ai?: boolean }) {
  const { data } = useRead<Items<Employee>>("employees", { limit: 1000 });
  const name = data && namesOf(data).get(id);
  return <bdi>{name ? `${name}, ${id}` : id}{ai ? " (AI)" : ""}</bdi>;
}
