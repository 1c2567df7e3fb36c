// Small parts of every page: cards, figures, terms with an explanation, states, and what is shown where nothing is.
import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { percent } from "../format";
import { STATES, TERMS } from "../words";

type Children = { children?: ComponentChildren };

/** A term with a dotted line; its explanation appears on hover, on focus and to screen readers. */
export function Term({ name, children }: Children & { name: string }) {
  return <span class="term" tabIndex={0} data-tip={TERMS[name]} aria-description={TERMS[name]}>{children ?? name}</span>;
}

/** The one place where explanations of terms appear, kept within the window. */
export function Tip() {
  const [shown, show] = useState<{ text: string; at: DOMRect } | null>(null);
  const box = useRef<HTMLDivElement>(null);
  useEffect(() => {
    const enter = (event: Event): void => {
      const owner = event.target instanceof Element ? event.target.closest<HTMLElement>("[data-tip]") : null;
      show(owner ? { text: owner.dataset.tip ?? "", at: owner.getBoundingClientRect() } : null);
    };
    const escape = (event: KeyboardEvent): void => { if (event.key === "Escape") show(null); };
    const leave = (): void => show(null);
    document.addEventListener("pointerover", enter);
    document.addEventListener("focusin", enter);
    document.addEventListener("keydown", escape);
    document.addEventListener("scroll", leave, true);
    return () => {
      document.removeEventListener("pointerover", enter);
      document.removeEventListener("focusin", enter);
      document.removeEventListener("keydown", escape);
      document.removeEventListener("scroll", leave, true);
    };
  }, []);
  useEffect(() => {
    if (!shown || !box.current) return;
    const { width, height } = box.current.getBoundingClientRect();
    const below = shown.at.bottom + 6 + height < innerHeight;
    box.current.style.left = `${Math.max(8, Math.min(shown.at.left, innerWidth - width - 8))}px`;
    box.current.style.top = `${below ? shown.at.bottom + 6 : Math.max(8, shown.at.top - height - 6)}px`;
  }, [shown]);
  return shown && <div id="tip" ref={box} aria-hidden="true">{shown.text}</div>;
}

export function Card({ title, term, tools, children }: Children & { title?: string; term?: string; tools?: ComponentChildren }) {
  return (
    <section class="card" aria-label={title}>
      {title && <header><h2>{term ? <Term name={term}>{title}</Term> : title}</h2>{tools && <div class="tools">{tools}</div>}</header>}
      {children}
    </section>
  );
}

export function Top({ title, children, tools }: Children & { title: string; tools?: ComponentChildren }) {
  return (
    <header class="top">
      <div><h1>{title}</h1>{children && <p>{children}</p>}</div>
      {tools && <div class="tools">{tools}</div>}
    </header>
  );
}

export const Figures = ({ children }: Children) => <dl class="figures">{children}</dl>;

/** A figure; with `href`, it opens the list that it counts. `change` is the difference to the days before. */
export function Figure(props: {
  label: string; term?: string; value: string; href?: string; more?: ComponentChildren; change?: string | null; better?: boolean | null;
}) {
  const { label, term, value, href, more, change, better } = props;
  return (
    <div>
      <dt>{term ? <Term name={term}>{label}</Term> : label}</dt>
      <dd>
        <div class="value">{href ? <a href={href}>{value}</a> : value}</div>
        <div class="more">
          {change && <span class={better == null ? "" : better ? "up" : "down"}>{change}</span>}{change && more ? " · " : ""}{more}
        </div>
      </dd>
    </div>
  );
}

/** The difference of two shares in points, or of two numbers in percent. */
export function pointsFrom(now: number | null | undefined, before: number | null | undefined): string | null {
  if (now == null || before == null) return null;
  const points = Math.round((now - before) * 1000) / 10;
  return `${points > 0 ? "+" : points < 0 ? "−" : "±"}${Math.abs(points)} points`;
}
export function changeFrom(now: number, before: number | null | undefined): string | null {
  if (!before) return null;
  const ratio = now / before - 1;
  return `${ratio > 0 ? "+" : ratio < 0 ? "−" : "±"}${percent(Math.abs(ratio))}`;
}

export function State({ name }: { name: string }) {
  const [text, tone] = STATES[name] ?? [name, ""];
  return <span class={`badge ${tone}`}>{text}</span>;
}

export function Empty({ title, children }: Children & { title: string }) {
  return <div class="empty"><strong>{title}</strong><span>{children}</span></div>;
}

/** What is shown in place of data that is not there yet. */
export function Pending({ problem }: { problem: string | null }) {
  return problem ? <p class="alert" role="alert">{problem}</p> : <p class="muted" aria-busy="true">Loading…</p>;
}

/** A bar of a share between 0 and 1. */
export function Meter({ share, label }: { share: number; label: string }) {
  return (
    <svg class="meter" viewBox="0 0 100 8" preserveAspectRatio="none" role="img" aria-label={label}>
      <rect width="100" height="8" rx="4" /><rect width={Math.max(0, Math.min(1, share)) * 100} height="8" rx="4" />
    </svg>
  );
}
