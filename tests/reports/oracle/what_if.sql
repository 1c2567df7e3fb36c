-- History under other limits of one action, which `tried` holds; budgets are never used up.

-- figure: judged
CREATE OR REPLACE TABLE judged AS
SELECT position, moment, text(d, 'agent_id') AS agent, text(d, 'role') AS role, text(d, 'kind') AS kind, minor(d, 'amount') AS amount,
       text(d, 'escalation_id') AS escalation, type = 'action.taken' AS done,
       CASE WHEN type = 'action.taken' THEN 'taken' ELSE text(d, 'outcome') END AS was, text(d, 'reasons[0].rule') AS rule_then,
       CASE WHEN most IS NULL THEN CASE WHEN EXISTS (FROM tried t WHERE t.kind = text(d, 'kind')) THEN 'escalate' ELSE 'refused' END
            WHEN minor(d, 'amount') <= most THEN 'taken' ELSE 'escalate' END AS now,
       CASE WHEN most IS NULL THEN 'kind' WHEN minor(d, 'amount') > most THEN 'per_action' END AS rule_now,
       concat_ws('/', text(d, 'agent_id'), text(d, 'kind'), text(d, 'interaction_id'), text(d, 'order_id'), text(d, 'customer_id')) AS matter
FROM events LEFT JOIN tried ON tried.role = text(d, 'role') AND tried.kind = text(d, 'kind')
WHERE ((type = 'action.taken' AND text(d, 'authority') = 'own') OR (type = 'authority.fell_short' AND text(d, 'preview') = 'false'))
  AND moment >= (SELECT moment FROM since);

-- figure: filed
-- The escalation of a request: the one it filed at once, else the first separate one for the same matter within seven days.
CREATE OR REPLACE TABLE filed AS
WITH requested AS (
    SELECT text(d, 'escalation_id') AS name, moment, position,
           concat_ws('/', text(d, 'agent_id'), text(d, 'kind'), text(d, 'interaction_id'), text(d, 'order_id'), text(d, 'customer_id')) AS matter
    FROM events WHERE type = 'escalation.requested'
), apart AS (
    SELECT judged.position, arg_min(requested.name, requested.position) AS name FROM judged JOIN requested USING (matter)
    WHERE escalation IS NULL AND was != now AND now = 'taken' AND requested.position > judged.position
      AND requested.moment <= judged.moment + INTERVAL 7 DAYS
      AND requested.name NOT IN (SELECT escalation FROM judged WHERE escalation IS NOT NULL) GROUP BY judged.position
)
SELECT judged.*, coalesce(escalation, apart.name) AS spared FROM judged LEFT JOIN apart USING (position);

-- figure: ends
CREATE OR REPLACE TABLE ends AS
SELECT text(d, 'escalation_id') AS spared, CAST(text(d, 'waited_seconds') AS DOUBLE) AS waited,
       CASE WHEN type = 'escalation.approved' AND minor(d, 'amount') < minor(d, 'asked') THEN 'approved in part' ELSE split_part(type, '.', 2) END AS outcome
FROM events WHERE type IN ('escalation.approved', 'escalation.denied', 'escalation.withdrawn', 'escalation.expired');

-- figure: whole
SELECT count(*) AS decisions, count(*) FILTER (was != now) AS differences, min(position) AS since_position, 0 AS unknown_people FROM judged;

-- figure: changes
SELECT kind, was AS then, now AS would_be, count(*) AS n, sum(amount)::BIGINT AS amount FROM judged GROUP BY ALL ORDER BY ALL;

-- figure: spend
WITH paid AS (
    SELECT moment, amount, done AS did, now = 'taken' AS would FROM judged WHERE done OR now = 'taken'
    UNION ALL
    SELECT moment, minor(d, 'amount'), true, text(d, 'escalation_id') NOT IN (SELECT spared FROM filed WHERE spared IS NOT NULL AND now = 'taken')
    FROM events WHERE type = 'action.taken' AND text(d, 'authority') != 'own' AND position > (SELECT min(position) FROM judged)
)
SELECT strftime(timezone('Europe/London', timezone('UTC', moment)), '%Y-%m') AS period,
       coalesce(sum(amount) FILTER (did), 0)::BIGINT AS spent, coalesce(sum(amount) FILTER (would), 0)::BIGINT AS would_be_spent
FROM paid GROUP BY ALL ORDER BY period;

-- figure: saved
SELECT count(DISTINCT spared) AS n, count(*) AS given_at_once, coalesce(sum(waited), 0) / 3600 AS hours_not_waited, median(waited) / 3600 AS median_hours,
       count(waited) AS waited, list(waited / 3600 ORDER BY waited) FILTER (waited IS NOT NULL) AS median_hours_of
FROM filed LEFT JOIN ends USING (spared) WHERE was != now AND now = 'taken';

-- figure: outcomes
SELECT coalesce(outcome, CASE WHEN spared IS NULL THEN 'not asked' ELSE 'undecided' END) AS outcome, count(*) AS n, sum(amount)::BIGINT AS amount
FROM filed LEFT JOIN ends USING (spared) WHERE was != now AND now = 'taken' GROUP BY ALL ORDER BY outcome;

-- figure: limits_hit
WITH hits AS (
    SELECT rule_then AS rule, 1 AS was, 0 AS would FROM judged WHERE rule_then IS NOT NULL
    UNION ALL SELECT rule_now, 0, 1 FROM judged WHERE rule_now IS NOT NULL
)
SELECT rule, sum(was)::BIGINT AS then, sum(would)::BIGINT AS would_be FROM hits GROUP BY ALL ORDER BY sum(was) + sum(would) DESC, rule;

-- figure: items
SELECT position, moment AS time, NULL AS team_id, agent AS agent_id, kind, was AS then, now, spared AS escalation_id,
       [CASE WHEN now = 'taken' THEN rule_then ELSE rule_now END] AS why, amount
FROM (SELECT * REPLACE (escalation AS spared) FROM filed) WHERE was != now ORDER BY position LIMIT 1000;

-- figure: effects
-- The effect of each limit tried; a month has 365.25 / 12 days, and less than 28 days are not extrapolated.
WITH span AS (
    SELECT seconds(arg_min(moment, position), arg_max(moment, position)) / 86400 AS days FROM judged
)
SELECT role, kind, any_value(days) AS days, count(*) AS given_at_once, count(DISTINCT spared) AS escalations_spared,
       coalesce(sum(waited), 0) / 3600 AS hours_not_waited, coalesce(sum(amount) FILTER (outcome != 'approved'), 0)::BIGINT AS not_approved,
       CASE WHEN any_value(days) >= 28 THEN count(DISTINCT spared) / any_value(days) * 365.25 / 12 END AS monthly
FROM filed LEFT JOIN ends USING (spared) CROSS JOIN span WHERE was != now AND now = 'taken' GROUP BY role, kind;

-- figure: span
SELECT seconds(arg_min(moment, position), arg_max(moment, position)) / 86400 AS days FROM judged;

-- figure: by_agent
-- The effect of the limits tried, by agent: actions given at once more, and those that would need an approval.
SELECT role, kind, agent, count(*) FILTER (now = 'taken') AS given_at_once, count(DISTINCT spared) FILTER (now = 'taken') AS escalations_spared,
       coalesce(sum(waited) FILTER (now = 'taken'), 0) / 3600 AS hours_not_waited,
       coalesce(sum(amount) FILTER (now = 'taken' AND outcome != 'approved'), 0)::BIGINT AS not_approved,
       count(*) FILTER (was = 'taken') AS would_escalate, coalesce(sum(amount) FILTER (was = 'taken'), 0)::BIGINT AS would_escalate_amount
FROM filed LEFT JOIN ends USING (spared) WHERE was != now GROUP BY ALL;
