-- The summary of a range [begin, end) of event times, by each property, from the definitions of the design page.
-- `limits` has the range, and the time zone of its days.

-- figure: base
CREATE OR REPLACE MACRO in_range(moment) AS coalesce(moment >= (SELECT begin FROM limits), true) AND coalesce(moment < (SELECT "end" FROM limits), true);
CREATE OR REPLACE MACRO local(moment) AS timezone((SELECT zone FROM limits), timezone('UTC', moment));
CREATE OR REPLACE MACRO week(moment) AS strftime(local(moment), '%G-W%V');
CREATE OR REPLACE TABLE opened AS
SELECT text(d, 'interaction_id') AS name, moment, text(d, 'customer_id') AS customer, text(d, 'order_id') AS order_name,
       text(d, 'channel') AS channel, text(d, 'reason') AS reason, text(d, 'agent_id') AS agent, text(d, 'team_id') AS team
FROM events WHERE type = 'interaction.opened';
CREATE OR REPLACE TABLE acts AS
SELECT text(d, 'action_id') AS name, moment, text(d, 'agent_id') AS agent, text(d, 'team_id') AS team, text(d, 'role') AS role,
       coalesce(text(d, 'agent_kind'), 'human') AS agent_kind, text(d, 'kind') AS kind, text(d, 'reason') AS reason, text(d, 'basis') = 'goodwill' AS goodwill,
       currency(d, 'amount') AS currency, minor(d, 'amount') AS amount, text(d, 'interaction_id') AS interaction,
       split_part(type, '.', 2) AS first_state
FROM events WHERE type = 'action.taken' OR (type = 'action.held' AND text(d, 'escalation_id') IS NULL)
UNION ALL -- what another system reports was given; that system says nothing about a kind of agent
SELECT 'act-' || left(sha256(source || chr(10) || id), 32), moment, text(d, 'agent_id'), coalesce(text(d, 'team_id'), team_of(text(d, 'agent_id'), moment)),
       role_of(text(d, 'agent_id'), moment), 'not said', text(d, 'kind'), text(d, 'reason'), coalesce(text(d, 'basis'), 'goodwill') = 'goodwill',
       currency(d, 'amount'), minor(d, 'amount'), text(d, 'interaction_id'), 'reported'
FROM facts WHERE type = 'action.reported';
CREATE OR REPLACE TABLE ended AS
SELECT acts.* EXCLUDE (amount, first_state), coalesce(settled.amount, acts.amount) AS amount,
       CASE WHEN settled.name IS NOT NULL THEN 'settled' WHEN voided.name IS NOT NULL THEN 'voided'
            WHEN first_state = 'reported' AND name IN (SELECT text(d, 'action_id') FROM events WHERE type = 'action.charged') THEN 'charged' ELSE first_state END AS state
FROM acts
LEFT JOIN (SELECT text(d, 'action_id') AS name, minor(d, 'amount') AS amount FROM events WHERE type = 'action.settled') AS settled
    USING (name)
LEFT JOIN (SELECT text(d, 'action_id') AS name FROM events WHERE type = 'action.voided') AS voided USING (name);
ALTER TABLE ended ADD COLUMN reversed BIGINT;
UPDATE ended SET reversed = coalesce((SELECT sum(minor(d, 'amount')) FROM events WHERE type = 'action.reversed' AND text(d, 'action_id') = name), 0);

-- figure: labelled
CREATE OR REPLACE TABLE labelled AS
WITH divided AS (
    SELECT ended.*, opened.channel FROM ended LEFT JOIN opened ON opened.name = interaction WHERE in_range(ended.moment)
)
    SELECT 'total' AS what, '' AS label, * FROM divided
    UNION ALL SELECT 'day', strftime(local(moment), '%Y-%m-%d'), * FROM divided
    UNION ALL SELECT 'week', week(moment), * FROM divided
    UNION ALL SELECT 'month', strftime(local(moment), '%Y-%m'), * FROM divided
    UNION ALL SELECT 'team', coalesce(team, 'not said'), * FROM divided
    UNION ALL SELECT 'agent', agent, * FROM divided
    UNION ALL SELECT 'role', coalesce(role, 'not said'), * FROM divided
    UNION ALL SELECT 'agent_kind', agent_kind, * FROM divided
    UNION ALL SELECT 'kind', kind, * FROM divided
    UNION ALL SELECT 'reason', reason, * FROM divided
    UNION ALL SELECT 'channel', coalesce(channel, 'not said'), * FROM divided;

-- figure: actions
SELECT what, label, count(*) FILTER (state IN ('taken', 'settled', 'reported', 'charged')) AS given,
       histogram(state) AS states
FROM labelled GROUP BY ALL ORDER BY ALL;

-- figure: given
SELECT what, label, currency, count(*) AS actions, CAST(sum(amount) AS BIGINT) AS amount,
       CAST(coalesce(sum(amount) FILTER (goodwill), 0) AS BIGINT) AS goodwill, CAST(sum(reversed) AS BIGINT) AS reversed,
       CAST(sum(amount) - sum(reversed) AS BIGINT) AS net, quantile_disc(amount, 0.5) FILTER (goodwill) AS median_goodwill,
       count(*) FILTER (goodwill) AS goodwill_actions, list(amount ORDER BY amount) FILTER (goodwill) AS median_goodwill_of
FROM labelled WHERE state IN ('taken', 'settled', 'reported', 'charged') GROUP BY ALL ORDER BY ALL;

-- figure: asked
CREATE OR REPLACE TABLE asked AS
WITH told AS (
    SELECT position, moment, '' AS source, text(d, 'escalation_id') AS name, text(d, 'kind') AS kind, text(d, 'reason') AS reason,
           text(d, 'agent_id') AS agent, text(d, 'role') AS role, text(d, 'team_id') AS team, minor(d, 'amount') AS asked,
           currency(d, 'amount') AS currency, text(d, 'interaction_id') AS interaction, coalesce(text(d, 'agent_kind'), 'human') AS agent_kind
    FROM events WHERE type = 'escalation.requested'
    UNION ALL
    SELECT position, moment, source, text(d, 'escalation_id'), text(d, 'kind'), text(d, 'reason'), text(d, 'requested_by'),
           role_of(text(d, 'requested_by'), moment), team_of(text(d, 'requested_by'), moment),
           minor(d, 'amount'), currency(d, 'amount'), text(d, 'interaction_id'), 'not said'
    FROM events WHERE type = 'escalation.reported'
), steps AS (
    SELECT position, moment, '' AS source, text(d, 'escalation_id') AS name, split_part(type, '.', 2) AS verdict,
           minor(d, 'amount') AS amount, CAST(text(d, 'waited_seconds') AS DOUBLE) AS waited
    FROM events WHERE type IN ('escalation.approved', 'escalation.denied', 'escalation.withdrawn', 'escalation.expired')
    UNION ALL
    SELECT position, moment, source, text(d, 'escalation_id'), text(d, 'verdict'), minor(d, 'amount'), NULL
    FROM events WHERE type = 'escalation.outcome_reported'
), final AS (
    SELECT told.position,
           first({'verdict': verdict, 'amount': coalesce(amount, asked), 'waited': coalesce(waited, greatest(0, seconds(told.moment, steps.moment)))}
                 ORDER BY verdict != 'approved', CASE WHEN verdict = 'approved' THEN steps.position ELSE -steps.position END) AS step
    FROM told JOIN steps USING (source, name) GROUP BY told.position
), divided AS (
    SELECT told.*, opened.channel, coalesce(step.verdict, 'open') AS outcome, step.waited / 3600 AS hours,
           CASE WHEN step.verdict = 'approved' THEN step.amount END AS approved
    FROM told LEFT JOIN final USING (position) LEFT JOIN opened ON opened.name = interaction WHERE in_range(told.moment)
)
    SELECT 'total' AS what, '' AS label, * FROM divided
    UNION ALL SELECT 'day', strftime(local(moment), '%Y-%m-%d'), * FROM divided
    UNION ALL SELECT 'week', week(moment), * FROM divided
    UNION ALL SELECT 'month', strftime(local(moment), '%Y-%m'), * FROM divided
    UNION ALL SELECT 'team', coalesce(team, 'not said'), * FROM divided
    UNION ALL SELECT 'agent', coalesce(agent, 'not said'), * FROM divided
    UNION ALL SELECT 'role', coalesce(role, 'not said'), * FROM divided
    UNION ALL SELECT 'agent_kind', agent_kind, * FROM divided
    UNION ALL SELECT 'kind', coalesce(kind, 'not said'), * FROM divided
    UNION ALL SELECT 'reason', coalesce(reason, 'not said'), * FROM divided
    UNION ALL SELECT 'channel', coalesce(channel, 'not said'), * FROM divided;

-- figure: escalations
SELECT what, label, count(*) AS requested, histogram(outcome) AS outcomes,
       share(count(*) FILTER (outcome = 'approved'), count(*) FILTER (outcome IN ('approved', 'denied'))) AS approved,
       count(hours) FILTER (outcome IN ('approved', 'denied')) AS n,
       avg(hours) FILTER (outcome IN ('approved', 'denied')) AS mean,
       stddev_samp(hours) FILTER (outcome IN ('approved', 'denied')) / sqrt(n) AS mean_error,
       median(hours) FILTER (outcome IN ('approved', 'denied')) AS median,
       list(hours ORDER BY hours) FILTER (outcome IN ('approved', 'denied')) AS median_of
FROM asked GROUP BY ALL ORDER BY ALL;

-- figure: asked_by_currency
SELECT what, label, currency, CAST(sum(asked) AS BIGINT) AS asked, CAST(coalesce(sum(approved), 0) AS BIGINT) AS approved_amount
FROM asked GROUP BY ALL ORDER BY ALL;

-- figure: interactions
WITH moved AS (
    SELECT text(d, 'interaction_id') AS name, count(*) AS transfers, count(text(d, 'story_repeated')) > 0 AS told,
           bool_or(text(d, 'story_repeated') = 'true') AS repeated
    FROM events WHERE type = 'interaction.transferred' GROUP BY ALL
), solved AS (
    SELECT text(d, 'interaction_id') AS name, min(moment) AS first_resolved, arg_max(type, (moment, position)) AS last_step,
           count(*) FILTER (type = 'interaction.reopened') AS reopened
    FROM events WHERE type IN ('interaction.resolved', 'interaction.reopened') GROUP BY ALL
), known AS (
    SELECT opened.*, coalesce(transfers, 0) AS transfers, coalesce(told, false) AS told, coalesce(repeated, false) AS repeated,
           coalesce(reopened, 0) AS reopened, coalesce(last_step = 'interaction.resolved', false) AS resolved,
           customer IS NOT NULL AND coalesce(first_resolved + INTERVAL 7 DAY <= (SELECT max(recorded) FROM events), false) AS judged,
           EXISTS (FROM opened AS other WHERE other.customer = opened.customer AND other.moment > opened.moment
               AND other.moment <= first_resolved + INTERVAL 7 DAY
               AND (other.order_name = opened.order_name
                    OR ((other.order_name IS NULL OR opened.order_name IS NULL) AND other.reason = opened.reason))) AS followed,
           EXISTS (FROM ended WHERE interaction = opened.name AND goodwill AND amount > 0 AND state IN ('taken', 'settled', 'reported', 'charged')) AS helped
    FROM opened LEFT JOIN moved USING (name) LEFT JOIN solved USING (name) WHERE in_range(opened.moment)
), labelled AS (
    SELECT 'total' AS what, '' AS label, * FROM known
    UNION ALL SELECT 'day', strftime(local(moment), '%Y-%m-%d'), * FROM known
    UNION ALL SELECT 'week', week(moment), * FROM known
    UNION ALL SELECT 'month', strftime(local(moment), '%Y-%m'), * FROM known
    UNION ALL SELECT 'team', coalesce(team, 'not said'), * FROM known
    UNION ALL SELECT 'agent', coalesce(agent, 'not said'), * FROM known
    UNION ALL SELECT 'reason', coalesce(reason, 'not said'), * FROM known
    UNION ALL SELECT 'channel', coalesce(channel, 'not said'), * FROM known
)
SELECT what, label, count(*) AS opened, share(count(*) FILTER (resolved), count(*)) AS resolved,
       share(count(*) FILTER (judged AND transfers = 0 AND reopened = 0 AND NOT followed), count(*) FILTER (judged)) AS first_contact,
       share(count(*) FILTER (transfers > 0), count(*)) AS transferred, avg(transfers) AS mean_transfers, stddev_samp(transfers) / sqrt(count(*)) AS mean_transfers_error,
       share(count(*) FILTER (reopened > 0), count(*)) AS reopened,
       share(count(*) FILTER (repeated), count(*) FILTER (told)) AS stories_repeated,
       share(count(*) FILTER (helped), count(*)) AS consistency
FROM labelled GROUP BY ALL ORDER BY ALL;

-- figure: satisfaction
-- An answer belongs to its own time, and to the group of its interaction. The response is that of the interactions opened in the range.
WITH said AS (
    SELECT events.moment, text(d, 'instrument') AS instrument, CAST(text(d, 'score') AS DOUBLE) AS score,
           CAST(text(d, 'best') AS DOUBLE) AS best, CAST(text(d, 'worst') AS DOUBLE) AS worst, channel, team, agent, reason
    FROM events LEFT JOIN opened ON opened.name = text(d, 'interaction_id')
    WHERE type = 'feedback.received' AND in_range(events.moment)
), asked AS (
    SELECT opened.*, list(DISTINCT text(d, 'instrument')) FILTER (type = 'feedback.received') AS answered
    FROM opened LEFT JOIN events ON type = 'feedback.received' AND text(d, 'interaction_id') = opened.name
    WHERE in_range(opened.moment) GROUP BY ALL
), labelled AS (
    SELECT 'total' AS what, '' AS label, * FROM said
    UNION ALL SELECT 'day', strftime(local(moment), '%Y-%m-%d'), * FROM said
    UNION ALL SELECT 'week', week(moment), * FROM said
    UNION ALL SELECT 'month', strftime(local(moment), '%Y-%m'), * FROM said
    UNION ALL SELECT 'team', coalesce(team, 'not said'), * FROM said
    UNION ALL SELECT 'agent', coalesce(agent, 'not said'), * FROM said
    UNION ALL SELECT 'reason', coalesce(reason, 'not said'), * FROM said
    UNION ALL SELECT 'channel', coalesce(channel, 'not said'), * FROM said
), asked_by AS (
    SELECT 'total' AS what, '' AS label, answered FROM asked
    UNION ALL SELECT 'day', strftime(local(moment), '%Y-%m-%d'), answered FROM asked
    UNION ALL SELECT 'week', week(moment), answered FROM asked
    UNION ALL SELECT 'month', strftime(local(moment), '%Y-%m'), answered FROM asked
    UNION ALL SELECT 'team', coalesce(team, 'not said'), answered FROM asked
    UNION ALL SELECT 'agent', coalesce(agent, 'not said'), answered FROM asked
    UNION ALL SELECT 'reason', coalesce(reason, 'not said'), answered FROM asked
    UNION ALL SELECT 'channel', coalesce(channel, 'not said'), answered FROM asked
), counted AS (
    SELECT what, label, instrument, worst, best, count(*) AS n, avg(score) AS mean, stddev_samp(score) / sqrt(count(*)) AS standard_error,
           min(score) AS lowest, max(score) AS highest,
           count(*) FILTER (CASE WHEN abs(best - worst) = 1 THEN score = best
                            ELSE (score - worst) / (best - worst) >= 0.75 END) AS good,
           count(*) FILTER (score IN (9, 10)) AS promoters, count(*) FILTER (score BETWEEN 0 AND 6) AS detractors
    FROM labelled GROUP BY ALL
), rated AS (
    SELECT *, (promoters + 0.75) / (n + 3) AS p, (detractors + 0.75) / (n + 3) AS q, instrument = 'nps' AND worst = 0 AND best = 10 AS nps,
           instrument IN ('csat', 'review') AS shared FROM counted
)
SELECT what, label, instrument, worst, best, n, mean, standard_error, [least(worst, best, lowest), greatest(worst, best, highest)] AS ends,
       CASE WHEN shared THEN CASE WHEN abs(best - worst) = 1 THEN best ELSE worst + 0.75 * (best - worst) END END AS threshold,
       CASE WHEN shared THEN share(good, n) END AS satisfied,
       CASE WHEN nps THEN 100 * (promoters - detractors) / n END AS points,
       CASE WHEN nps THEN [greatest(-100, 100 * (p - q - 1.959963984540054 * sqrt((p + q - (p - q) ** 2) / (n + 3)))),
                           least(100, 100 * (p - q + 1.959963984540054 * sqrt((p + q - (p - q) ** 2) / (n + 3))))] END AS points_interval,
       (SELECT share(count(*) FILTER (list_contains(answered, instrument)), count(*)) FROM asked_by
        WHERE asked_by.what = rated.what AND asked_by.label = rated.label) AS response
FROM rated ORDER BY what, label, instrument, worst, best;

-- figure: budgets
-- Budgets of periods with a day in the range, each as a whole; at its closing the rest of a budget lapses or is carried over.
WITH days AS (
    SELECT DISTINCT text(d, 'period') AS period,
           CASE WHEN period LIKE '%-W%' THEN strptime(period || '-1', '%G-W%V-%u')::DATE
                WHEN period LIKE '%-Q%' THEN make_date(period[:4]::INT, period[-1:]::INT * 3 - 2, 1)
                WHEN length(period) = 7 THEN (period || '-01')::DATE ELSE period::DATE END AS first,
           CASE WHEN period LIKE '%-W%' THEN 'week' WHEN period LIKE '%-Q%' THEN 'quarter' WHEN length(period) = 7 THEN 'month' ELSE 'day' END AS kind,
           CAST(first + CASE kind WHEN 'week' THEN INTERVAL 7 DAYS WHEN 'quarter' THEN INTERVAL 3 MONTHS WHEN 'month' THEN INTERVAL 1 MONTH
                ELSE INTERVAL 1 DAY END AS DATE) AS after
    FROM events WHERE type = 'budget.opened'
), holds AS (
    SELECT text(d, 'action_id') AS name, minor(d, 'amount') AS held FROM events WHERE type = 'action.held' AND text(d, 'basis') = 'goodwill'
), postings AS (
    SELECT text(d, 'holder') AS holder, text(d, 'period') AS period,
           coalesce(currency(d, 'amount'), currency(d, 'granted'), currency(d, 'spent')) AS currency, type,
           coalesce(text(d, 'basis'), 'goodwill') = 'goodwill' AS goodwill, coalesce(minor(d, 'amount'), 0) AS minor,
           CASE WHEN type = 'budget.opened' THEN minor(d, 'granted') + minor(d, 'carried_over') END AS opening,
           CASE WHEN type = 'budget.closed' THEN minor(d, 'lapsed') + minor(d, 'carried_over') ELSE 0 END AS lapsed,
           CASE text(d, 'direction') WHEN 'out' THEN -1 ELSE 1 END AS sign, coalesce(held, 0) AS held, text(d, 'recovered') = 'true' AS recovered
    FROM events LEFT JOIN holds ON holds.name = text(d, 'action_id') WHERE text(d, 'holder') IS NOT NULL AND type NOT LIKE 'escalation.%'
), each_budget AS (
    SELECT holder, period, currency, any_value(kind) AS kind, sum(lapsed) AS lapsed,
           sum(CASE type WHEN 'budget.opened' THEN opening WHEN 'budget.granted' THEN minor WHEN 'budget.transferred' THEN sign * minor
               WHEN 'budget.drawn' THEN sign * minor ELSE 0 END) AS granted,
           coalesce(sum(CASE WHEN type IN ('action.taken', 'action.charged', 'action.settled') THEN minor
               WHEN type = 'action.reversed' AND recovered THEN -minor ELSE 0 END) FILTER (goodwill), 0) AS spent,
           coalesce(sum(CASE WHEN type = 'action.held' THEN minor WHEN type IN ('action.settled', 'action.voided') THEN -held ELSE 0 END) FILTER (goodwill), 0) AS reserved
    FROM postings JOIN days USING (period)
    WHERE first <= coalesce(local((SELECT "end" FROM limits) - INTERVAL 1 MICROSECOND)::DATE, DATE '9999-12-31')
      AND after > coalesce(local((SELECT begin FROM limits))::DATE, DATE '0001-01-01') GROUP BY ALL
), labelled AS (
    SELECT 'total' AS what, '' AS label, * FROM each_budget
    UNION ALL SELECT kind, period, * FROM each_budget WHERE kind != 'quarter'
    UNION ALL SELECT split_part(holder, ':', 1), split_part(holder, ':', 2), * FROM each_budget WHERE split_part(holder, ':', 1) IN ('team', 'agent')
)
SELECT what, label, currency, count(DISTINCT holder) AS holders, CAST(sum(granted) AS BIGINT) AS granted, CAST(sum(spent) AS BIGINT) AS spent,
       CAST(sum(reserved) AS BIGINT) AS reserved, CAST(sum(lapsed) AS BIGINT) AS lapsed,
       CAST(sum(granted) - sum(spent) - sum(reserved) - sum(lapsed) AS BIGINT) AS remaining,
       CASE WHEN sum(granted) > 0 THEN sum(spent) / sum(granted) END AS spent_share
FROM labelled GROUP BY ALL ORDER BY ALL;
