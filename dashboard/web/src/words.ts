// The texts that more than one page shows: terms with their explanation, names of pages, and of states.
export const TERMS: Record<string, string> = {
  action: "A remedy given to a customer, such as a refund or a replacement, with its cost to the company.",
  authority: "The limits within which a person may act without approval.",
  budget: "The amount that one holder may spend in one period and currency.",
  case: "Flags about one subject, reviewed together, with the loss that is expected from it.",
  entitlement: "An amount that the law or the contract gives to the customer. It draws no budget.",
  escalation: "A request for the authority of another person.",
  event: "An immutable record in the log.",
  checkpoint: "The signed root hash of the seal over all events up to a position. A copy kept elsewhere reveals a changed history.",
  "evidence level": "1 before and after, 2 matched customers, 3 quasi-experiment, 4 randomised trial.",
  "first contact": "Interactions that were resolved without a transfer, were not reopened, and were not followed by a contact of the same customer in the same matter within seven days.",
  flag: "An indication of misuse. It asks for a human review and is no verdict.",
  funnel: "Groups outside the limits differ from all groups together by more than chance. The limits are adjusted for overdispersion.",
  goodwill: "An action beyond what the customer is owed. It draws on the budget and meets the limits.",
  interval: "A 95 % interval: the range of values that the data are compatible with.",
  "on the spot": "Actions that were given without approval, as a share of these and of all escalations.",
  position: "The sequence number of an event in the log.",
  satisfied: "Answers near the best score: at or above the worst score plus three quarters of the scale.",
  "silent gap": "Matters in which the agent was told to escalate, and no escalation was filed within seven days.",
  transferred: "Interactions that were handed to another agent or team at least once.",
  "unused authority": "Less than a tenth of the budget was spent in the period. Counted are employees with 10 contacts or more. A reason may be fear or missing training.",
  waiting: "Half of the escalations were decided within this time.",
};

export const STATES: Record<string, [string, "good" | "bad" | "warn" | ""]> = {
  taken: ["given", "good"], settled: ["paid", "good"], charged: ["given", "good"], held: ["held", "warn"],
  voided: ["voided", ""], reversed: ["reversed", "warn"], reported: ["reported", ""], "never happened": ["never happened", ""],
  waiting: ["waiting", "warn"], approved: ["approved", "good"], denied: ["denied", "bad"], withdrawn: ["withdrawn", ""], expired: ["expired", "bad"],
  open: ["open", "warn"], below: ["below the line", ""], closed: ["closed", ""], confirmed: ["confirmed", "bad"],
  verified: ["verified", "good"], "not verified": ["not verified", "bad"], enforced: ["enforced", "good"], shadow: ["in the shadow", ""],
  coached: ["coached", ""], dismissed: ["dismissed", "good"],
};
