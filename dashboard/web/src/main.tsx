// The page: sign-in, navigation by role, and the page that the address names.
import { render } from "preact";
import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import "./style.css";
import { forgetAll, isSignedIn, readFailedAgain, signIn, signOut, viewChanged, whenSignedOut } from "./api";
import { Tip } from "./components/parts";
import { forgetNames } from "./components/person";
import { number, time } from "./format";
import { Authority, MayI } from "./pages/authority";
import { Cases } from "./pages/cases";
import { PolicyHistory, Seal } from "./pages/evidence";
import { Accesses, Actions, Budgets, Escalations, Spending } from "./pages/lists";
import { Overview } from "./pages/overview";
import { Components, Glossary } from "./pages/reference";
import { Section } from "./pages/section";
import { Sessions } from "./pages/sessions";
import { Today, useWaiting } from "./pages/today";
import { TrailPage } from "./pages/trail";
import type { Viewer } from "./types";
import { link, showsThePast, usePlace } from "./url";

interface Show { me: Viewer; say: (text: string) => void }
interface Page { title: string; group: string; roles: string; show: (given: Show) => ComponentChildren }
const ABOVE = "manager auditor operator";
const ALL = `agent ${ABOVE}`;

/** The pages by name; an empty group keeps a page out of the navigation. */
const PAGES: Record<string, Page> = {
  me: { title: "My authority", group: "Work", roles: "agent", show: (given) => <Authority {...given} /> },
  today: { title: "Today", group: "Work", roles: "manager", show: (given) => <Today {...given} /> },
  check: { title: "Check an action", group: "Work", roles: "manager operator", show: ({ me }) => <><h1>Check an action</h1><MayI me={me} /></> },
  overview: { title: "Overview", group: "Insight", roles: ABOVE, show: ({ me }) => <Overview me={me} /> },
  gap: { title: "Authority gap", group: "Insight", roles: ABOVE, show: ({ me }) => <Section key="gap" name="gap" title="Authority gap" me={me} about="Requests beyond the limits. Another limit can be replayed over history, tried in the shadow or by lot, and proposed." /> },
  value: { title: "Customer value", group: "Insight", roles: ABOVE, show: ({ me }) => <Section key="value" name="value" title="Customer value" me={me} about="The effect on purchases, by evidence level." /> },
  recognition: { title: "Recognition", group: "Insight", roles: ABOVE, show: ({ me }) => <Section key="recognition" name="recognition" title="Recognition" me={me} about="Thanks, training, ideas and morale. People are not ranked." /> },
  actions: { title: "Actions", group: "Records", roles: ALL, show: () => <Actions /> },
  escalations: { title: "Escalations", group: "Records", roles: ALL, show: () => <Escalations /> },
  budgets: { title: "Budgets", group: "Records", roles: ALL, show: () => <Budgets /> },
  spending: { title: "Spending", group: "", roles: ALL, show: () => <Spending /> },
  trail: { title: "Audit trail", group: "Control", roles: ALL, show: ({ me }) => <TrailPage me={me} /> },
  policy: { title: "Policy", group: "Control", roles: ABOVE, show: ({ me }) => <PolicyHistory me={me} /> },
  accesses: { title: "Accesses", group: "Control", roles: "auditor operator", show: () => <Accesses /> },
  seal: { title: "Seal", group: "Control", roles: "auditor operator", show: () => <Seal /> },
  cases: { title: "Cases", group: "Control", roles: ABOVE, show: (given) => <Cases {...given} /> },
  integrations: { title: "Integrations", group: "System", roles: "auditor operator", show: ({ me }) => <Section key="integrations" name="integrations" title="Integrations" me={me} about="Events of other systems, rejections with their reasons, and a place to try an event." /> },
  health: { title: "Health", group: "System", roles: ALL, show: ({ me }) => <Section key="health" name="health" title="Health" me={me} about="How far each view has read the log." /> },
  glossary: { title: "Glossary", group: "System", roles: ALL, show: () => <Glossary /> },
  sessions: { title: "Sessions", group: "", roles: ALL, show: (given) => <Sessions {...given} /> },
  components: { title: "Components", group: "", roles: ALL, show: () => <Components /> },
};
const HOME: Record<string, string> = { agent: "me", manager: "today", auditor: "cases" };

function Shell({ me, openid }: { me: Viewer; openid: boolean }) {
  const place = usePlace();
  const home = HOME[me.role] ?? "overview";
  const wanted = PAGES[place.page];
  const name = wanted?.roles.split(" ").includes(me.role) ? place.page : home;
  const page = PAGES[name] as Page;
  const [open, setOpen] = useState(false);
  const [said, setSaid] = useState("");
  const [live, setLive] = useState("");
  const main = useRef<HTMLElement>(null);
  const first = useRef(true);
  const say = (text: string): void => { setSaid(text); setTimeout(() => setSaid((now) => (now === text ? "" : now)), 6000); };
  useEffect(() => {
    document.title = `${page.title} · Resolution Ledger`;
    setOpen(false);
    if (first.current) { first.current = false; return; }
    main.current?.focus({ preventScroll: true });
    scrollTo(0, 0);
  }, [name]);
  useEffect(() => {
    const stream = new EventSource("/api/v1/stream");
    stream.addEventListener("view", (update) => {
      const { view, position } = JSON.parse(update.data as string) as { view: string; position: number };
      viewChanged(view, position);
    });
    stream.onopen = () => { setLive("Live"); readFailedAgain(); };
    stream.onerror = () => setLive("Waiting for the ledger…");
    return () => stream.close();
  }, []);
  const groups = [...new Set(Object.values(PAGES).map((one) => one.group))].filter(Boolean);
  return (
    <div id="shell">
      <a class="skip" href="#main" onClick={(event) => { event.preventDefault(); main.current?.focus(); }}>Skip to content</a>
      <header id="side" class={open ? "open" : ""}>
        <div class="bar"><p class="brand"><img src="/assets/icon.svg" alt="" />Resolution Ledger</p>
          <button type="button" id="menu" aria-expanded={open} onClick={() => setOpen(!open)}>Menu</button></div>
        <nav aria-label="Pages">
          {groups.map((group) => {
            const pages = Object.entries(PAGES).filter(([, one]) => one.group === group && one.roles.split(" ").includes(me.role));
            return pages.length > 0 && (
              <div key={group}><h2 id={`group-${group}`}>{group}</h2>
                <ul aria-labelledby={`group-${group}`}>{pages.map(([key, one]) => (
                  <li key={key}><a href={link(key)} aria-current={key === name ? "page" : undefined}>{one.title}{key === "today" && <Count me={me} />}</a></li>
                ))}</ul></div>
            );
          })}
        </nav>
        <div class="foot">
          <span id="state" role="status">{live}</span>
          <span>{me.person_id ?? me.name}, {me.role}</span>
          <a href={link("sessions")} aria-current={name === "sessions" ? "page" : undefined}>Sessions</a>
          <button type="button" id="sign-out" onClick={() => { if (openid) location.href = "/openid/sign-out"; else void signOut().then(() => { location.hash = ""; location.reload(); }); }}>Sign out</button>
        </div>
      </header>
      <main id="main" tabIndex={-1} ref={main} key={name}>
        {place.query.as_of && !showsThePast(name) && (
          <p class="note" id="present">This page shows the present, not the state recorded by {time(place.query.as_of) || place.query.as_of}.</p>
        )}
        {page.show({ me, say })}
      </main>
      <div id="said" role="status">{said && <p>{said}</p>}</div>
      <Tip />
    </div>
  );
}

function Count({ me }: { me: Viewer }) {
  const { items } = useWaiting(me);
  return items?.length ? <span class="count">{number(items.length)}</span> : null;
}

function SignIn({ openid, then }: { openid: boolean; then: () => void }) {
  const [token, setToken] = useState("");
  const [problem, setProblem] = useState("");
  const send = async (): Promise<void> => {
    try {
      await signIn(token);
      then();
    } catch (failed) { setProblem((failed as Error).message); }
    setToken("");
  };
  return (
    <main>
      <form id="sign-in" class="card" onSubmit={(event) => { event.preventDefault(); void send(); }}>
        <h1>Sign in</h1>
        {openid && <p><a class="button first" href="/openid/sign-in">Sign in with your company account</a></p>}
        <p class="muted">{openid && "Or: "}Enter a token from <code>resolution-ledger admin tokens make</code>, or the operator's <code>http_token</code> in <code>connection.json</code>.</p>
        <label class="field" for="token">Token<input id="token" type="password" autocomplete="current-password" required value={token} onInput={(event) => setToken(event.currentTarget.value)} /></label>
        <button class="first">Sign in</button>
        <p role="alert" id="refused">{problem}</p>
      </form>
    </main>
  );
}

const AGAIN_MS = 3000;

function Root() {
  const [me, setMe] = useState<Viewer | null>(null);
  const [known, setKnown] = useState<boolean | null>(null);
  const [openid, setOpenid] = useState(false);
  const [problem, setProblem] = useState("");
  const begin = async (): Promise<void> => {
    try {
      const session = await isSignedIn();
      setOpenid(session.openid);
      setMe(session.caller);
      setKnown(session.known);
      setProblem("");
    } catch (failed) { // the session may be valid: a form to sign in would be wrong
      setProblem((failed as Error).message);
      setTimeout(() => void begin(), AGAIN_MS);
    }
  };
  useEffect(() => {
    whenSignedOut(() => { forgetAll(); forgetNames(); setMe(null); setKnown(false); });
    void begin();
  }, []);
  if (me) return <Shell key={me.name} me={me} openid={openid} />;
  if (problem) return <main><section class="card" role="status"><h1>Waiting for the ledger</h1><p>{problem}</p></section></main>;
  return known === false ? <SignIn openid={openid} then={() => void begin()} /> : null;
}

render(<Root />, document.getElementById("root") as HTMLElement);
