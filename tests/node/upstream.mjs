// An upstream on NATS's own client and the CloudEvents SDK: publishes in each mode, waits for receipts, asks for a
// decision. Given: the address and credentials in its file, and the name of the source.
import { jetstream } from "@nats-io/jetstream";
import { connect, headers as natsHeaders } from "@nats-io/transport-node";
import { CloudEvent, HTTP } from "cloudevents";
import { answer, given } from "./lines.mjs";

const { connection, source } = given();
const nc = await connect({ servers: connection.nats_url, user: connection.nats_user, pass: connection.nats_password });
const js = jetstream(nc);

const fact = (id, type, data) =>
  new CloudEvent({ id, source, type: `resolution.${type}.v1`, time: "2026-01-05T10:00:00.000Z", data });

async function publish({ headers, body }) {
  const sent = natsHeaders();
  for (const [name, value] of Object.entries(headers)) sent.set(name, String(value));
  const ack = await js.publish(`resolution.inbox.${source}`, body, { headers: sent });
  return { stream: ack.stream, seq: ack.seq, duplicate: ack.duplicate };
}

async function ask(subject, request) {
  const reply = await nc.request(subject, JSON.stringify(request), { timeout: 10_000 });
  return reply.json();
}

async function receipt(id) {
  for (let tries = 0; tries < 400; tries += 1) {
    const found = await ask(`resolution.read.${source}.receipt`, { id });
    if (!["pending", "unknown"].includes(found.status)) return found;
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
  throw new Error(`${id} has no receipt`);
}

const joined = fact("structured-1", "employee.joined", { employee_id: "A-1", role: "agent", team_ids: ["phone"] });
const opened = fact("binary-1", "interaction.opened", { interaction_id: "I-1", customer_id: "C-9", channel: "phone" });
const total = { amount: "12.00", currency: "GBP" };
const bought = ["batch-1", "batch-2"].map((id) => fact(id, "purchase.completed", { order_id: id, customer_id: "C-9", total }));

const acks = [await publish(HTTP.structured(joined)), await publish(HTTP.binary(opened))];
acks.push(await publish({ headers: { "content-type": "application/cloudevents-batch+json" }, body: JSON.stringify(bought) }));
const receipts = {};
for (const event of [joined, opened, ...bought]) receipts[event.id] = await receipt(event.id);

const { stream, seq } = acks[2];
const place = await ask(`resolution.read.${source}.receipt`, { stream, seq });

const decide = (operation, request) => ask(`resolution.decide.${source}.${operation}`, request);
const request = {
  request_id: "r-1", agent_id: "A-1", customer_id: "C-9", interaction_id: "I-1", kind: "refund",
  amount: { amount: "5.00", currency: "GBP" }, reason: "late",
};
const taken = await decide("action", request);
const again = await decide("action", request);
const misspelt = await decide("action", { ...request, request_id: "r-2", hodl: true });
await nc.drain();
answer({ acks, receipts, place, taken, again, misspelt });
