// Open sessions: those of this person; for auditors and operators, all.
import { useState } from "preact/hooks";
import { endSession, refresh, useRead } from "../api";
import type { OpenSession } from "../api";
import { Card, Empty, Pending, Top } from "../components/parts";
import { Person } from "../components/person";
import { Table } from "../components/table";
import { time } from "../format";
import type { Viewer } from "../types";

export function Sessions({ me, say }: { me: Viewer; say: (text: string) => void }) {
  const { data, problem } = useRead<{ items: OpenSession[] }>("sessions");
  const [busy, setBusy] = useState("");
  const owner = (one: OpenSession): string => one.person_id ?? one.name;
  const mayEnd = (one: OpenSession): boolean => !one.current && (me.role === "operator" || owner(one) === (me.person_id ?? me.name));
  const end = async (one: OpenSession): Promise<void> => {
    setBusy(one.id);
    try {
      await endSession(one.id);
      say("The session has ended.");
      refresh("sessions");
    } catch (failed) { say((failed as Error).message); }
    setBusy("");
  };
  return (
    <>
      <Top title="Sessions">Browsers that are signed in. End a session that you do not know, then revoke its token.</Top>
      {!data ? <Pending problem={problem} /> : (
        <Card title="Open sessions">
          <Table caption="Open sessions" hideCaption rows={data.items} empty={<Empty title="No session is open.">A browser that signs in appears here.</Empty>} columns={[
            { title: "Person", value: owner, cell: (one) => (one.person_id ? <Person id={one.person_id} /> : one.name) },
            { title: "Role", value: (one) => one.role },
            { title: "Token", value: (one) => one.name, extra: true },
            { title: "Begun", value: (one) => one.begun, cell: (one) => time(one.begun) },
            { title: "Expires", value: (one) => one.expires, cell: (one) => time(one.expires) },
            { title: "", value: (one) => (one.current ? "this browser" : ""), cell: (one) => (one.current ? "this browser" : mayEnd(one) && (
              <button type="button" disabled={busy === one.id} aria-label={`End the session of ${owner(one)}, begun ${time(one.begun)}`} onClick={() => void end(one)}>End</button>
            )) },
          ]} />
        </Card>
      )}
    </>
  );
}
