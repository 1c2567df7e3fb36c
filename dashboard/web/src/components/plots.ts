// The charts, drawn by Observable Plot as SVG. Colours are those of style.css, so they follow light and dark.
import { axisX, axisY, barY, cell, dot, gridY, line, plot, ruleX, ruleY, text } from "@observablehq/plot";
import type { Plot } from "@observablehq/plot";

const STYLE = { color: "currentColor", fontSize: "11px" };
type Drawn = SVGElement | HTMLElement;

export interface DayPoint { day: Date; value: number; title: string }

/** Bars by day. */
export function byDay(points: DayPoint[], width: number): Drawn {
  return plot({
    width, height: 220, marginLeft: 48, marginBottom: 28, style: STYLE,
    x: { type: "band", label: null }, y: { label: null, nice: true, ...(points.some((one) => one.value) ? {} : { domain: [0, 1] }) },
    marks: [
      gridY({ ticks: 4, stroke: "var(--line)", strokeOpacity: 1 }),
      axisY({ tickSize: 0, ticks: 4, tickFormat: (value: number) => value.toLocaleString() }),
      axisX({ tickSize: 0, ticks: points.filter((_, at) => at % Math.ceil(points.length / (width / 80)) === 0).map((one) => one.day), tickFormat: (day: Date) => day.toLocaleDateString(undefined, { day: "numeric", month: "short" }) }),
      barY(points, { x: "day", y: "value", fill: "var(--accent)", rx: 2, title: "title", insetLeft: 1, insetRight: 1 }),
      ruleY([0], { stroke: "var(--edge)" }),
    ],
  });
}

export interface HeatCell { column: string; row: string; value: number; href: string | undefined; title: string }

/** A heat map whose cells open what they count. */
export function heat(cells: HeatCell[], width: number): Drawn {
  const rows = new Set(cells.map((one) => one.row)).size;
  const most = Math.max(1, ...cells.map((one) => one.value));
  return plot({
    width, height: 42 + rows * 30, marginLeft: Math.min(130, width / 3), marginTop: 34, marginBottom: 4, padding: 0.06, style: STYLE,
    x: { label: null }, y: { label: null },
    marks: [
      axisX({ anchor: "top", tickSize: 0, lineWidth: 7 }), axisY({ tickSize: 0 }),
      cell(cells, { x: "column", y: "row", fill: "var(--heat)", fillOpacity: (one: HeatCell) => 0.06 + 0.5 * one.value / most, rx: 3, title: "title", href: "href", ariaLabel: "title" }),
      text(cells, { x: "column", y: "row", text: (one: HeatCell) => one.value.toLocaleString(), fill: "var(--ink)", fontWeight: 600, pointerEvents: "none" }),
    ],
  });
}

export interface FunnelPoint { group: string; n: number; share: number; low: number; high: number; outside: boolean; title: string }

const LETTER = 6;
const LINE = 13;

/** The distance of each label from its dot in pixels, so that none lies on another or on a dot; null for one without a place. */
export function placesOf(dots: { x: number; y: number; label: string }[]): (number | null)[] {
  const boxes = dots.map(({ x, y }) => ({ left: x - 4, right: x + 4, top: y - 4, bottom: y + 4 }));
  return dots.map(({ x, y, label }) => {
    const half = label.length * LETTER / 2;
    for (const away of [-11, 12, -24, 25]) {
      const box = { left: x - half, right: x + half, top: y + away - LINE / 2, bottom: y + away + LINE / 2 };
      if (boxes.some((one) => one.left < box.right && box.left < one.right && one.top < box.bottom && box.top < one.bottom)) continue;
      boxes.push(box);
      return away;
    }
    return null;
  });
}

/** A funnel plot: the share of each group by its size, with the limits of chance. */
export function funnel(points: FunnelPoint[], common: number, width: number): Drawn {
  const ordered = [...points].sort((a, b) => a.n - b.n);
  const labelled = [...points].sort((a, b) => Number(b.outside) - Number(a.outside) || b.n - a.n); // what differs is named first
  const draw = (away: (number | null)[]): Drawn & Plot => plot({
    width, height: 250, marginLeft: 44, marginRight: 24, marginBottom: 42, style: STYLE,
    x: { label: "interactions →", nice: true, insetRight: 40 }, y: { label: null, nice: true, insetTop: 8, insetBottom: 8, tickFormat: (value: number) => `${Math.round(value * 100)} %` },
    marks: [
      axisX({ ticks: Math.max(2, width / 90), tickSize: 0 }), axisY({ ticks: 5, tickSize: 0, tickFormat: (value: number) => `${Math.round(value * 100)} %` }),
      ruleY([common], { stroke: "var(--edge)" }),
      line(ordered, { x: "n", y: "low", stroke: "var(--before)", strokeDasharray: "4 3" }),
      line(ordered, { x: "n", y: "high", stroke: "var(--before)", strokeDasharray: "4 3" }),
      dot(points, { x: "n", y: "share", r: 4, fill: (one: FunnelPoint) => (one.outside ? "var(--bad)" : "var(--accent)"), title: "title" }),
      ...[...new Set(away)].filter((one) => one !== null).map((dy) => (
        text(labelled.filter((_, at) => away[at] === dy), { x: "n", y: "share", text: "group", dy, fill: "var(--ink)" })
      )),
    ],
  });
  const bare = draw([]);
  const [x, y] = [bare.scale("x"), bare.scale("y")];
  return draw(placesOf(labelled.map((one) => ({ x: x?.apply(one.n) as number, y: y?.apply(one.share) as number, label: one.group }))));
}

export interface ForestLine { name: string; value: number; low: number; high: number; title: string }

/** A forest plot: estimates with their intervals around no difference. */
export function forest(lines: ForestLine[], width: number, format: (value: number) => string): Drawn {
  return plot({
    width, height: 46 + lines.length * 30, marginLeft: Math.min(190, width * 0.42), style: STYLE,
    x: { label: null, nice: true }, y: { label: null, domain: lines.map((one) => one.name) },
    marks: [
      axisX({ ticks: Math.max(2, width / 120), tickSize: 0, tickFormat: format }), axisY({ tickSize: 0 }),
      ruleX([0], { stroke: "var(--edge)" }),
      ruleY(lines, { x1: "low", x2: "high", y: "name", stroke: "var(--accent)", strokeWidth: 2 }),
      dot(lines, { x: "value", y: "name", r: 4.5, fill: "var(--accent)", title: "title" }),
    ],
  });
}
