// An upstream on HTTP alone, in TypeScript: its paths, fields and codes are those that openapi-typescript generated.
import createClient from "openapi-fetch";
import type { components, paths } from "./ledger.d.ts";

type Schemas = components["schemas"];

const EVENT = { headers: { "content-type": "application/cloudevents+json" } };
const BATCH = { headers: { "content-type": "application/cloudevents-batch+json" } };

const fact = (source: string, id: string): Schemas["CloudEvent"] => ({
  specversion: "1.0", id, source, type: "resolution.purchase.completed.v1", time: "2026-01-05T10:00:00Z",
  data: { order_id: id, customer_id: "C-9", total: { amount: "12.00", currency: "GBP" } },
});

const request = (agent: string): Schemas["ActionRequest"] => ({
  agent_id: agent, customer_id: "C-9", kind: "refund", amount: { amount: "5.00", currency: "GBP" }, reason: "late",
});

function dataOf<Data>(answer: { data?: Data; error?: Schemas["Problem"] }): Data {
  if (answer.data === undefined) throw new Error(answer.error?.detail);
  return answer.data;
}

export async function converse(url: string, token: string, source: string) {
  const ledger = createClient<paths>({ baseUrl: url, headers: { authorization: `Bearer ${token}` } });

  const one = await ledger.POST("/api/v1/events", { body: fact(source, "typed/1 €"), ...EVENT });
  const batch = ["typed-2", "typed-3"].map((id) => fact(source, id));
  const many = await ledger.POST("/api/v1/events", { body: batch, ...BATCH });
  const outcomes = [];
  for (const receipt of [...dataOf(one).receipts, ...dataOf(many).receipts]) {
    outcomes.push({ id: receipt.id, status: await outcome(receipt.id) });
  }

  async function outcome(id: string) {
    for (let tries = 0; tries < 400; tries += 1) {
      const { status } = dataOf(await ledger.GET("/api/v1/receipts/{id}", { params: { path: { id } } }));
      if (status === "recorded" || status === "rejected") return status;
      await new Promise((resolve) => setTimeout(resolve, 25));
    }
    throw new Error(`${id} has no receipt`);
  }

  const decide = (agent: string, key: string) =>
    ledger.POST("/api/v1/decisions/action", { body: request(agent), params: { header: { "idempotency-key": key } } });
  const taken = dataOf(await decide("A-1", "typed-1"));
  const again = dataOf(await decide("A-1", "typed-1"));
  const { error } = await decide("nobody", "typed-2");
  const refusal = error?.code === "unknown_agent" ? { status: error.status, field: error.field } : null;

  const query = { customer_id: "C-9", agent_id: "A-1" };
  const brief = dataOf(await ledger.GET("/api/v1/brief", { params: { query } }));
  const given = brief.actions?.map(({ action_id, amount }) => ({ action_id, amount: amount?.amount }));
  return { outcomes, taken, again, refusal, brief: { household: brief.household, given } };
}
