// A chart with its numbers as a table beside it; the library of charts is loaded by the first one.
import { useEffect, useRef, useState } from "preact/hooks";
import type * as Plots from "./plots";
import { save } from "./table";
import { Card } from "./parts";
import type { ComponentChildren } from "preact";

interface Props {
  title: string; term?: string; draw: (plots: typeof Plots, width: number) => SVGElement | HTMLElement; label: string; table: ComponentChildren;
  /** Anything that changes when the chart must be drawn again. */
  drawn: unknown; legend?: ComponentChildren;
}

/** The properties of a chart that style.css decides, or that hold its colours. */
const STYLES = ["color", "fill", "stroke", "stroke-width", "stroke-dasharray", "font-family", "font-size", "white-space"];

/** A chart as a file: what style.css gives it is in the file, its links lead to this page. */
export function withStyles(shown: SVGElement): string {
  const svg = shown.cloneNode(true) as SVGElement;
  const parts = [svg, ...svg.querySelectorAll<SVGElement>("*")];
  [shown, ...shown.querySelectorAll("*")].forEach((one, at) => {
    const style = getComputedStyle(one);
    for (const name of STYLES) parts[at]?.style.setProperty(name, style.getPropertyValue(name));
  });
  for (const one of svg.querySelectorAll<SVGAElement>("a")) one.setAttribute("href", new URL(one.href.baseVal, location.href).href);
  svg.style.background = getComputedStyle(document.documentElement).getPropertyValue("--paper");
  return new XMLSerializer().serializeToString(svg);
}

export function Chart({ title, term, draw, label, table, drawn, legend }: Props) {
  const place = useRef<HTMLDivElement>(null);
  const [numbers, showNumbers] = useState(false);
  const [width, setWidth] = useState(0);
  useEffect(() => {
    if (!place.current) return undefined;
    const watching = new ResizeObserver(([one]) => { if (one) setWidth(Math.round(one.contentRect.width)); });
    watching.observe(place.current);
    return () => watching.disconnect();
  }, [numbers]);
  useEffect(() => {
    let current = true;
    if (width) void import("./plots").then((plots) => {
      if (!current || !place.current) return;
      const made = draw(plots, width);
      for (const style of made.querySelectorAll("style")) style.remove(); // style.css has these rules: the policy allows no inline style
      for (const part of made.querySelectorAll("g[aria-label]")) part.removeAttribute("aria-label"); // names of marks
      made.setAttribute("role", made.querySelector("a") ? "group" : "img");
      made.setAttribute("aria-label", label);
      place.current.replaceChildren(made);
    });
    return () => { current = false; };
  }, [width, drawn, numbers]);
  const toSvg = (): void => {
    const svg = place.current?.querySelector("svg");
    if (svg) save(`${title.toLowerCase().replaceAll(" ", "-")}.svg`, "image/svg+xml", withStyles(svg));
  };
  return (
    <Card title={title} {...(term ? { term } : {})} tools={<>
      <button type="button" class="plain" aria-pressed={numbers} onClick={() => showNumbers(!numbers)}>{numbers ? "Chart" : "Numbers"}</button>
      {!numbers && <button type="button" class="plain" onClick={toSvg}>SVG</button>}
    </>}>
      {numbers ? table : <><figure class="chart" ref={place} />{legend && <p class="legend">{legend}</p>}</>}
    </Card>
  );
}
