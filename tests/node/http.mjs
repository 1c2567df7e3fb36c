// An upstream on HTTP alone: publishes with the CloudEvents SDK in each mode, waits for receipts, asks for a decision.
// Given: the address of the HTTP API, the token of the source, and its name.
import { CloudEvent, HTTP } from "cloudevents";
import { answer, given } from "./lines.mjs";

const { url, token, source } = given();
const total = { amount: "12.00", currency: "GBP" };
const fact = (id) =>
  new CloudEvent({
    id, source, type: "resolution.purchase.completed.v1", time: "2026-01-05T10:00:00.000Z",
    data: { order_id: id, customer_id: "C-9", total },
  });

async function send(method, path, headers = {}, body = undefined) {
  const reply = await fetch(url + path, { method, headers: { ...headers, authorization: `Bearer ${token}` }, body });
  return { status: reply.status, body: await reply.json() };
}

async function receipt(id) {
  for (let tries = 0; tries < 400; tries += 1) {
    const { body } = await send("GET", `/api/v1/receipts/${encodeURIComponent(id)}`);
    if (!["pending", "unknown"].includes(body.status)) return body;
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
  throw new Error(`${id} has no receipt`);
}

const messages = [HTTP.structured(fact("structured/1 €")), HTTP.binary(fact("binary-1"))];
messages.push({
  headers: { "content-type": "application/cloudevents-batch+json" },
  body: JSON.stringify([fact("batch-1"), fact("batch-2")]),
});
const published = [];
for (const { headers, body } of messages) published.push(await send("POST", "/api/v1/events", headers, body));
const receipts = {};
for (const id of ["structured/1 €", "binary-1", "batch-1", "batch-2"]) receipts[id] = await receipt(id);

const headers = { "content-type": "application/json", "idempotency-key": "r-1" };
const request = JSON.stringify({
  agent_id: "A-1", customer_id: "C-9", kind: "refund", amount: { amount: "5.00", currency: "GBP" }, reason: "late",
});
const taken = await send("POST", "/api/v1/decisions/action", headers, request);
const again = await send("POST", "/api/v1/decisions/action", headers, request);
answer({ published, receipts, taken, again });
