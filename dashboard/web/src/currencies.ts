// The currencies of a summary, that of most actions first.
import type { Figures, Given } from "./types";

/** The currencies in which goodwill was given; without any goodwill, the one with most actions. */
export function goodwillBy({ actions }: Figures): Given[] {
  const ordered = [...actions.by_currency].sort((a, b) => b.actions - a.actions);
  const given = ordered.filter((one) => Number(one.goodwill.amount));
  return given.length ? given : ordered.slice(0, 1);
}
