// Documents of the API. Commands and pages of lists have the types of the OpenAPI document; items are described here.
import type { Me } from "./api";

export type Viewer = Me;
export interface Money { amount: string; currency: string }
export interface Share { k: number; n: number; share: number | null; interval: [number, number] | null }
export interface Items<T> { items: T[]; position: number; lag_seconds: number; next: number | string | null; total?: number | null }

export interface Action {
  action_id: string; position: number; time: string; state: string; agent_id: string; team_id: string | null;
  customer_id: string | null; interaction_id: string | null; kind: string; basis: string; reason: string;
  escalation_id: string | null; decided_by: string | null; agent_kind: string | null; amount: Money; reversed: Money | null;
}
export interface Escalation {
  escalation_id: string; position: number; requested: string; status: string; agent_id: string; team_id: string | null;
  customer_id: string | null; interaction_id: string | null; kind: string; reason: string; asked_of: string[]; due: string | null;
  decided_by: string | null; waited_seconds: number | null; asked: Money; amount: Money | null; agent_kind: string | null;
}
export interface Employee { employee_id: string; name: string | null; manager_id: string | null; manager_name: string | null; left: string | null }
export interface Limit { rule: string; message: string; limit?: Money; used?: Money; asked?: Money }
export interface Story { time: string; what: string; who: string | null; position: number }
export interface EscalationCase {
  escalation: Escalation; limits: Limit[]; actions: Action[]; waiting: Escalation[]; story: Story[];
  alike: Escalation[]; alike_decided: Share; customer_ids: string[]; position: number;
}
export interface Balance {
  holder: string; period: string; granted: Money; spent: Money; reserved: Money; remaining: Money; opened: string; closed: boolean;
}
export interface Case {
  case_id: string; subject: string; status: string; rank: number | null; rules: string[]; explanation: string;
  expected_loss: Money | null; opened: string | null; found: string | null; flag_ids: string[];
}
export interface Flag {
  flag_id: string; rule: string; about: string[]; explanation: string; evidence: number[]; raised: string; status: string;
  reviewed_by: string | null; note: string | null; answer: string | null;
}
export interface TrailEvent {
  position: number; type: string; source: string; time: string; recorded: string; who: string | null; whom: string | null;
  interaction_id: string | null; action_id: string | null; what: string;
}
export interface Given {
  currency: string; actions: number; goodwill: Money; net: Money; amount: Money;
  goodwill_actions: number; median_goodwill: Money | null; median_goodwill_interval: [Money, Money] | null;
}
export interface Figures {
  actions: { given: number; by_currency: Given[] };
  budgets: { currency: string; granted: Money; spent: Money; remaining: Money; spent_share: number | null }[] | null;
  escalations: { requested: number; outcomes: Record<string, number>; approved: Share; hours_waited: { n: number; median: number | null; median_interval: [number, number] | null } };
  interactions: {
    opened: number; first_contact: Share; transferred: Share; resolved: Share; mean_transfers: number | null; mean_transfers_interval: [number, number] | null;
  } | null;
  satisfaction: { instrument: string; n: number; satisfied: Share | null }[] | null;
  consistency: Share | null;
}
export type Divided = Figures & { group: string; before: Figures | null };
export interface Summary {
  from: string | null; to: string | null; time_zone: string; before: { from: string; to: string } | null;
  total: Figures & { before: Figures | null }; groups: Divided[]; caveats: string[]; position: number;
}
export type Range = { from: string; to: string };
export interface BeyondAuthority { items: { kind: string; reason: string; asked: number; silent: number; approved_anyway: number; text: string }[] }
export interface Consistency {
  what: string; label: string; by: string; given: Share;
  groups: {
    group: string; given: Share; limits: [number, number]; wide_limits: [number, number];
    medians: Money[]; median_intervals: { currency: string; n: number; interval: [Money, Money] | null }[];
  }[];
}
export interface Explanation {
  position: number; story: { what: string; said: string }[]; after: { position: number; time: string; who: string; what: string }[];
  interaction: TrailEvent[];
}
