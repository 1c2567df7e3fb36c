// Evidence for auditors: the versions of the policy with their changes, and the checkpoints of the seal.
import { useState } from "preact/hooks";
import { act, refresh, useRead } from "../api";
import type { CheckpointRow, PolicyVersion, Proposal } from "../api";
import { Card, Empty, Pending, State, Top } from "../components/parts";
import { Person } from "../components/person";
import { Table, save } from "../components/table";
import { decimal, money, number, time, words } from "../format";
import type { Viewer } from "../types";

export type Change = PolicyVersion["changes"][number];

const told = (value: unknown): string => (typeof value === "string" ? value.replaceAll("_", " ") : JSON.stringify(value));
/** A change in words: what became of the field. */
const became = ({ before, after }: Change): string => (
  before == null ? `added: ${told(after)}` : after == null ? `removed: ${told(before)}` : `from ${told(before)} to ${told(after)}`
);
const fieldOf = (path: string): string => path.split(".").join(" › ").replaceAll("_", " ");
const changed = (one: PolicyVersion): string => (
  one.version === 1 ? "First version" : one.changes.length === 1 ? "1 change" : `${number(one.changes.length)} changes`
);

/** The effect of a limit in a replay of history, in words. */
function evident(one: PolicyVersion["evidence"]): string {
  if (!one) return "none";
  const people = one.people_of ? `, of the people of ${one.people_of}` : "";
  return `${words(one.kind)} of up to ${money(one.limit)} for ${one.role}, replayed over ${decimal(one.days)} days as of position ${number(one.position)}${people}: `
    + `${number(one.given_at_once)} given at once, ${number(one.escalations_spared)} escalations spared, ${money(one.not_approved)} that had no approval, ${number(one.would_escalate)} that would need one`;
}

/** Proposals that wait for approvals. */
function Proposals({ me, newest }: { me: Viewer; newest: number }) {
  const { data } = useRead<{ items: Proposal[] }>("policies");
  const [problem, setProblem] = useState("");
  const open = (data?.items ?? []).filter((one) => one.state === "open" && one.replaces === newest);
  if (!open.length) return null;
  const approve = async (one: Proposal): Promise<void> => {
    try {
      await act("policies", { operation: "approve", sha256: one.sha256 });
      setProblem("");
      refresh("policies");
    } catch (failed) { setProblem((failed as Error).message); }
  };
  return (
    <Card title="Proposals">
      <Table caption="Proposals" hideCaption rows={open} perPage={5} columns={[
        { title: "Proposed", value: (one) => one.at, cell: (one) => time(one.at) },
        { title: "By", value: (one) => one.proposed_by, cell: (one) => <Person id={one.proposed_by} /> },
        { title: "Evidence", value: (one) => evident(one.evidence) },
        { title: "Approved by", value: (one) => one.approved_by.join(", ") || "none" },
        { title: "Missing", value: (one) => one.missing, right: true },
        { title: "", value: () => "", cell: (one) => me.role === "manager" && me.person_id !== one.proposed_by && <button type="button" onClick={() => void approve(one)}>Approve</button> },
        { title: "SHA-256", value: (one) => one.sha256, extra: true },
      ]} />
      {problem && <p class="alert" role="alert">{problem}</p>}
    </Card>
  );
}

export function PolicyHistory({ me }: { me: Viewer }) {
  const { data, problem } = useRead<{ items: PolicyVersion[] }>("policies/versions");
  return (
    <>
      <Top title="Policy">Published versions, the newest first, each with its proposer, its approvers, and its changes from the version before.</Top>
      {data && <Proposals me={me} newest={data.items.find((one) => one.mode === "enforced")?.version ?? 0} />}
      {!data ? <Pending problem={problem} /> : (
        <Card title="Versions">
          <Table caption="Versions" hideCaption rows={data.items} perPage={10} empty={<Empty title="No policy was published yet.">Publish one with <code>resolution-ledger decide policy</code>.</Empty>} columns={[
            { title: "Version", value: (one) => one.version, right: true },
            { title: "Published", value: (one) => one.published, cell: (one) => time(one.published) },
            { title: "In force from", value: (one) => one.effective_from, cell: (one) => time(one.effective_from) },
            { title: "Mode", value: (one) => one.mode, cell: (one) => <State name={one.mode} /> },
            { title: "Proposed by", value: (one) => one.proposed_by ?? one.published_by, cell: (one) => <Person id={one.proposed_by ?? one.published_by} /> },
            { title: "Approved by", value: (one) => one.approved_by.join(", "), cell: (one) => (one.approved_by.length ? one.approved_by.map((id) => <div key={id}><Person id={id} /></div>) : one.break_glass ? "none: break-glass" : "none") },
            { title: "Changes", value: (one) => one.changes.map((at) => `${at.field}: ${became(at)}`).join("; "), cell: (one) => <Changes one={one} /> },
            { title: "Evidence", value: (one) => evident(one.evidence) },
            { title: "Proposed", value: (one) => one.proposed, cell: (one) => time(one.proposed), extra: true }, { title: "Published by", value: (one) => one.published_by, extra: true },
            { title: "Reason", value: (one) => one.reason, extra: true },
            { title: "Position", value: (one) => one.position, right: true, extra: true }, { title: "SHA-256", value: (one) => one.sha256, extra: true },
          ]} />
        </Card>
      )}
    </>
  );
}

function Changes({ one }: { one: PolicyVersion }) {
  return (
    <details>
      <summary>{changed(one)}</summary>
      <ChangeList changes={one.changes} />
    </details>
  );
}

/** The changed fields of a policy, each with what became of it. */
export function ChangeList({ changes }: { changes: Change[] }) {
  return <dl class="changes">{changes.map((at) => <><dt>{fieldOf(at.field)}</dt><dd>{became(at)}</dd></>)}</dl>;
}

export function Seal() {
  const { data, problem } = useRead<{ items: CheckpointRow[] }>("checkpoints");
  return (
    <>
      <Top title="Seal">The checkpoints that the ledger holds: the newest, those that witnesses signed, and those at which a new key began.</Top>
      {!data ? <Pending problem={problem} /> : (
        <Card title="Checkpoints" term="checkpoint">
          <p class="note">Verified: a trusted key signed the checkpoint, and its root hash is that of the stored tree. <code>resolution-ledger audit verify</code> compares every event of the log with it.</p>
          <Table caption="Checkpoints" hideCaption rows={data.items} perPage={10} empty={<Empty title="Nothing is sealed yet.">The first checkpoint appears a moment after the first event.</Empty>} columns={[
            { title: "Number", value: (one) => one.number, right: true },
            { title: "Time", value: (one) => one.time, cell: (one) => time(one.time) },
            { title: "Size", value: (one) => one.size, cell: (one) => number(one.size), right: true },
            { title: "Root hash", value: (one) => one.root },
            { title: "Witnesses", value: (one) => one.witnesses, right: true },
            { title: "Verified", value: (one) => (one.verified ? "verified" : "not verified"), cell: (one) => <State name={one.verified ? "verified" : "not verified"} /> },
            { title: "", value: () => "", cell: (one) => <button type="button" class="plain" aria-label={`Download the checkpoint of ${number(one.size)} positions`} onClick={() => save(`checkpoint-${one.size}.txt`, "text/plain", one.note)}>Download</button> },
            { title: "Signed by", value: (one) => one.signed_by.join(", "), extra: true },
          ]} />
        </Card>
      )}
    </>
  );
}
