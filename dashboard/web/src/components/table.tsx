// A table that sorts, filters, chooses columns, pages and exports; on a phone each row becomes a block.
import type { ComponentChildren } from "preact";
import { useId, useMemo, useState } from "preact/hooks";
import { number } from "../format";
import { Empty, Term } from "./parts";

export interface Column<T> {
  title: string;
  value: (row: T) => string | number | null | undefined;
  cell?: (row: T) => ComponentChildren;
  right?: boolean;
  term?: string;
  /** Shown only where the reader chooses it. */
  extra?: boolean;
}
interface Props<T> {
  caption: string; rows: T[]; columns: Column<T>[]; perPage?: number; empty?: ComponentChildren;
  /** The address of the whole list as a file; without one the loaded rows are exported. */
  file?: (format: "csv" | "parquet") => string;
  hideCaption?: boolean;
}

/** A cell of CSV; a text that a spreadsheet would take for a formula begins with an apostrophe, as in the files of the API. */
function quoted(value: string | number | null | undefined): string {
  const text = String(value ?? "");
  const isFormula = typeof value === "string" && /^[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]/.test(text) && !/^[-+]?[0-9]+(\.[0-9]+)?$/.test(text);
  const safe = isFormula ? `'${text}` : text;
  return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

export function save(name: string, type: string, content: string): void {
  const anchor = document.createElement("a");
  anchor.href = URL.createObjectURL(new Blob([content], { type }));
  anchor.download = name;
  anchor.click();
  setTimeout(() => URL.revokeObjectURL(anchor.href), 10_000);
}

/** A short text breaks between words alone, so a narrow table does not cut "Refund" in two. */
function Text({ value }: { value: string | number | null | undefined }) {
  const text = String(value ?? "");
  return <bdi class={text.length <= 24 ? "short" : ""}>{text}</bdi>;
}

/** Rows of a page on a phone, where each row is a block. */
const ON_A_PHONE = 6;

export function Table<T>({ caption, rows, columns, perPage: most = 20, empty, file, hideCaption }: Props<T>) {
  const perPage = matchMedia("(max-width: 40rem)").matches ? Math.min(most, ON_A_PHONE) : most;
  const [sort, setSort] = useState<{ at: number; down: boolean } | null>(null);
  const [filter, setFilter] = useState("");
  const [chosen, choose] = useState<ReadonlySet<string>>(() => new Set(columns.filter((one) => !one.extra).map((one) => one.title)));
  const [shown, show] = useState(perPage);
  const id = useId();
  const visible = columns.filter((one) => chosen.has(one.title));
  const found = useMemo(() => {
    const wanted = filter.trim().toLowerCase();
    const some = wanted ? rows.filter((row) => columns.some((one) => String(one.value(row) ?? "").toLowerCase().includes(wanted))) : rows;
    const column = sort && columns[sort.at];
    if (!column) return some;
    const sign = sort.down ? -1 : 1;
    return [...some].sort((a, b) => {
      const [left, right] = [column.value(a) ?? "", column.value(b) ?? ""];
      return sign * (typeof left === "number" && typeof right === "number" ? left - right : String(left).localeCompare(String(right)));
    });
  }, [rows, filter, sort, columns]);
  const toCsv = (): void => save(`${caption.toLowerCase().replaceAll(" ", "-")}.csv`, "text/csv",
    [visible.map((one) => quoted(one.title)), ...found.map((row) => visible.map((one) => quoted(one.value(row))))].map((line) => line.join(",")).join("\r\n"));
  if (!rows.length && empty) return <>{empty}</>;
  const title = `${caption} (${number(found.length)})`;
  return (
    <div>
      <div class="bar">
        {!hideCaption && <h3 id={id}>{title}</h3>}
        <span class="tools">
          {rows.length > 8 && (
            <input type="search" aria-label={`Filter: ${caption}`} placeholder="Filter…" value={filter} onInput={(event) => setFilter(event.currentTarget.value)} />
          )}
          {rows.length > 0 && (
            <details class="pop">
              <summary class="button" aria-label={`Columns and export: ${caption}`}>⋯</summary>
              <div>
                {columns.map((one) => (
                  <label key={one.title}>
                    <input type="checkbox" checked={chosen.has(one.title)} onChange={() => {
                      const changed = new Set(chosen);
                      if (!changed.delete(one.title)) changed.add(one.title);
                      choose(changed);
                    }} /> {one.title || "More"}
                  </label>
                ))}
                {file ? <>
                  <a class="button" href={file("csv")} download>Export CSV</a>
                  <a class="button" href={file("parquet")}>Export Parquet</a>{/* without the server's library, its answer says what to install */}
                </> : <button type="button" onClick={toCsv}>Export CSV</button>}
              </div>
            </details>
          )}
        </span>
      </div>
      <div class="scroll" role="group" tabIndex={0} aria-label={caption}>
        <table class="stack">
          <caption class="unseen">{title}</caption>
          <thead>
            <tr>
              {visible.map((one) => {
                const at = columns.indexOf(one);
                const sorted = sort?.at === at ? (sort.down ? "descending" : "ascending") : "none";
                return (
                  <th key={one.title} scope="col" class={one.right ? "number" : ""} aria-sort={sorted}>
                    {!one.title ? <span class="unseen">More</span> : (
                      <button type="button" onClick={() => setSort(sorted === "descending" ? { at, down: false } : sorted === "ascending" ? null : { at, down: true })}>
                        {one.title}{sorted === "ascending" ? " ↑" : sorted === "descending" ? " ↓" : ""}
                      </button>
                    )}
                    {one.term && <Term name={one.term}> ?</Term>}
                  </th>
                );
              })}
            </tr>
          </thead>
          <tbody>
            {found.slice(0, shown).map((row, at) => (
              <tr key={at}>
                {visible.map((one) => (
                  <td key={one.title} class={one.right ? "number" : ""} data-title={one.right ? one.title : undefined}>{one.cell ? one.cell(row) : <Text value={one.value(row)} />}</td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {!found.length && rows.length > 0 && <Empty title="No row fits the filter.">Clear the filter to see all rows.</Empty>}
      {found.length > shown && (
        <button type="button" class="plain" onClick={() => show(shown * 2)}>
          Show more
        </button>
      )}
    </div>
  );
}
