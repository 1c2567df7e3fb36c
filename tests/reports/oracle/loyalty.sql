-- The effects of help on customers, from the definitions of the design page.

-- figure: sales
-- Times in whole seconds. A window after a moment begins with it; one before it ends just before it.
CREATE OR REPLACE TABLE sales AS
SELECT text(d, 'customer_id') AS customer, epoch(moment)::BIGINT AS t, currency(d, 'total') AS currency, minor(d, 'total') AS total,
       CASE WHEN text(d, 'margin.amount') IS NOT NULL THEN minor(d, 'margin') END AS margin, type = 'purchase.returned' AS back
FROM events WHERE type IN ('purchase.completed', 'purchase.returned') AND text(d, 'customer_id') IS NOT NULL;
CREATE OR REPLACE TABLE sold AS FROM sales WHERE NOT back AND currency = 'GBP';
CREATE OR REPLACE TABLE history AS SELECT min(t) AS first, max(t) AS last FROM sales WHERE currency = 'GBP';
CREATE OR REPLACE MACRO spent(who, since, until) AS
    (SELECT coalesce(sum(total), 0)::DOUBLE FROM sold WHERE sold.customer = who AND sold.t > since AND sold.t <= until);
CREATE OR REPLACE MACRO margin_of(who, since, until) AS
    (SELECT coalesce(sum(margin), 0)::DOUBLE FROM sold WHERE sold.customer = who AND sold.t > since AND sold.t <= until);
CREATE OR REPLACE MACRO bought_in(who, since, until) AS
    EXISTS (FROM sold WHERE sold.customer = who AND sold.t > since AND sold.t <= until);
CREATE OR REPLACE MACRO covered(since, until) AS since >= (SELECT first FROM history) AND until <= (SELECT last FROM history);

-- figure: acts
CREATE OR REPLACE TABLE acts AS
SELECT text(d, 'action_id') AS name, text(d, 'customer_id') AS customer, epoch(moment)::BIGINT AS t, moment, text(d, 'kind') AS kind,
       minor(d, 'amount') AS cost, text(d, 'team_id') AS team, text(d, 'escalation_id') IS NOT NULL AS escalated,
       text(d, 'interaction_id') AS interaction
FROM events WHERE type = 'action.taken' AND currency(d, 'amount') = 'GBP' AND text(d, 'customer_id') IS NOT NULL;
CREATE OR REPLACE TABLE problems AS
SELECT text(d, 'interaction_id') AS name, text(d, 'customer_id') AS customer, epoch(moment)::BIGINT AS t, text(d, 'channel') AS channel,
       text(d, 'reason') AS reason, text(d, 'team_id') AS team
FROM events WHERE type = 'interaction.opened' AND text(d, 'customer_id') IS NOT NULL;
CREATE OR REPLACE TABLE treated AS
SELECT acts.customer, acts.t, acts.kind, cost, escalated, coalesce(acts.team, 'not said') AS team,
       coalesce(problems.channel, 'not said') AS channel,
       (SELECT max(edge) FROM (VALUES (0), (10), (20), (50), (100), (200), (500), (1000), (2000), (5000), (10000)) AS e(edge) WHERE edge * 100 <= cost) AS low,
       problems.reason AS reason, problems.channel AS problem_channel, interaction IS NOT NULL AS has_problem,
       EXISTS (FROM sold WHERE sold.customer = acts.customer AND sold.t < acts.t) AS had
FROM acts LEFT JOIN problems ON problems.name = interaction
QUALIFY row_number() OVER (PARTITION BY acts.customer ORDER BY moment, acts.name) = 1;
CREATE OR REPLACE TABLE helped AS SELECT customer, min(t) AS since FROM acts GROUP BY ALL;

-- figure: helped_customers
SELECT treated.customer, t, kind, cost, team, channel, escalated, had,
       low || CASE WHEN low = 10000 THEN '+' ELSE '-' || (SELECT min(edge) FROM (VALUES (10), (20), (50), (100), (200), (500), (1000), (2000), (5000), (10000)) AS e(edge) WHERE edge > low) END AS band,
       has_problem,
       EXISTS (FROM sales WHERE sales.back AND currency = 'GBP' AND sales.customer = treated.customer
               AND sales.t > treated.t - 30 * 86400 AND sales.t <= treated.t + 30 * 86400) AS sent_back
FROM treated ORDER BY treated.customer;

-- figure: windows
SELECT treated.customer, days, covered(t, t + days * 86400) AS after_known, covered(t - days * 86400, t + days * 86400) AS known,
       covered(t - 2 * days * 86400, t) AS earlier_known,
       spent(treated.customer, t - days * 86400, t - 1) AS before, spent(treated.customer, t - 1, t + days * 86400) AS after,
       spent(treated.customer, t - 2 * days * 86400, t - days * 86400 - 1) AS earlier,
       bought_in(treated.customer, t - 1, t + days * 86400) AS came,
       EXISTS (FROM acts WHERE acts.customer = treated.customer AND acts.t > treated.t AND acts.t <= treated.t + days * 86400) AS again
FROM treated CROSS JOIN (VALUES (30), (90), (180)) AS w(days) ORDER BY treated.customer, days;

-- figure: candidates
-- Another customer with the same problem within thirty days, not helped until a day after it.
CREATE OR REPLACE TABLE candidates AS
SELECT treated.customer, treated.t, problems.customer AS control, problems.t AS control_at FROM treated JOIN problems
    ON problems.reason = treated.reason AND problems.channel = treated.problem_channel AND problems.customer != treated.customer
LEFT JOIN helped ON helped.customer = problems.customer
WHERE treated.had AND has_problem AND problems.t >= treated.t - 30 * 86400 AND problems.t < treated.t + 30 * 86400
  AND (since IS NULL OR since > problems.t + 86400);

-- figure: design
-- Controls are sought by problem where half of the helped customers had one, and there are half as many problems without help.
SELECT (SELECT avg(has_problem::INT) FROM treated) >= 0.5 AND
       (SELECT count(*) FROM problems LEFT JOIN helped USING (customer) WHERE since IS NULL OR since > t + 86400) >= (SELECT count(*) FROM treated) / 2 AS by_problem;

-- figure: covariates
CREATE OR REPLACE TABLE covariates AS
WITH moments AS (
    SELECT customer, t FROM treated WHERE had AND has_problem UNION SELECT control, control_at FROM candidates
), known AS (
    SELECT moments.*, count(sold.t) AS orders, max(sold.t) AS last_order, min(sold.t) AS first_order FROM moments
    LEFT JOIN sold ON sold.customer = moments.customer AND sold.t < moments.t GROUP BY ALL
)
SELECT customer, t, ln(1 + orders) AS orders, ln(1 + coalesce((t - last_order) / 86400, 3650)) AS recency,
       ln(1 + spent(customer, t - 180 * 86400, t - 1)) AS spend, ln(1 + coalesce((t - first_order) / 86400, 0)) AS tenure, t / 86400 AS date
FROM known;

-- figure: scales
-- A covariate that is the same for all keeps its own scale.
CREATE OR REPLACE MACRO spread(x) AS CASE WHEN max(x) = min(x) THEN 1.0 ELSE stddev_pop(x) END;
CREATE OR REPLACE TABLE scales AS
SELECT spread(orders) AS orders, spread(recency) AS recency, spread(spend) AS spend, spread(tenure) AS tenure, spread(date) AS date FROM covariates JOIN treated USING (customer, t) WHERE had AND has_problem;

-- figure: pairs
-- Differences of the covariates in standard deviations; a pair is matched if all together are at most one apart.
WITH apart AS (
    SELECT c.*, [(a.orders - b.orders) / s.orders, (a.recency - b.recency) / s.recency, (a.spend - b.spend) / s.spend,
                 (a.tenure - b.tenure) / s.tenure, (a.date - b.date) / s.date] AS difference,
           [b.orders / s.orders, b.recency / s.recency, b.spend / s.spend, b.tenure / s.tenure, b.date / s.date] AS theirs
    FROM candidates c JOIN covariates a ON a.customer = c.customer AND a.t = c.t
    JOIN covariates b ON b.customer = c.control AND b.t = c.control_at CROSS JOIN scales s
)
SELECT apart.customer, days, difference, theirs, list_sum(list_transform(difference, lambda x: x * x)) <= 1 AS matched,
       covered(t, t + days * 86400) AND covered(control_at, control_at + days * 86400) AS known,
       covered(t - 2 * days * 86400, t) AND covered(control_at - 2 * days * 86400, control_at) AS earlier_known,
       covered(t - 2 * days * 86400, t + days * 86400) AND covered(control_at - 2 * days * 86400, control_at + days * 86400) AS all_known,
       EXISTS (FROM sold WHERE sold.customer = control AND sold.t < control_at) AS control_had,
       coalesce(since > control_at AND since <= control_at + days * 86400, false) AS helped_later,
       bought_in(apart.customer, t - 1, t + days * 86400) AS came, bought_in(control, control_at - 1, control_at + days * 86400) AS control_came,
       bought_in(apart.customer, t - 2 * days * 86400, t - days * 86400 - 1) AS earlier_came,
       bought_in(control, control_at - 2 * days * 86400, control_at - days * 86400 - 1) AS control_earlier,
       [spent(apart.customer, t - 2 * days * 86400, t - days * 86400 - 1), spent(apart.customer, t - days * 86400, t - 1),
        spent(apart.customer, t - 1, t + days * 86400)] AS spending,
       [spent(control, control_at - 2 * days * 86400, control_at - days * 86400 - 1), spent(control, control_at - days * 86400, control_at - 1),
        spent(control, control_at - 1, control_at + days * 86400)] AS control_spending
FROM apart LEFT JOIN helped ON helped.customer = control CROSS JOIN (VALUES (30), (90), (180)) AS w(days) ORDER BY apart.customer, days;

-- figure: margins
-- The difference of a pair's margins up to each day from the first to the 180th.
SELECT c.customer, list(margin_of(c.customer, t - 1, t + day * 86400) - margin_of(control, control_at - 1, control_at + day * 86400) ORDER BY day) AS gaps
FROM candidates c CROSS JOIN range(1, 181) AS r(day) GROUP BY c.customer ORDER BY c.customer;

-- figure: margins_known
SELECT count(margin) / count(*) AS share FROM sold;

-- figure: near_the_limit
-- A customer's first request of a kind that met the limit of one action, with complete days after it.
SELECT kind, days, minor(d, 'amount') / minor(d, 'limit_met') AS ratio, bought_in(customer, t - 1, t + days * 86400) AS came FROM (
    SELECT text(d, 'kind') AS kind, text(d, 'customer_id') AS customer, epoch(moment)::BIGINT AS t, moment, position, days,
           json_object('amount', d->'amount', 'limit_met', d->'$.reasons[0].limit') AS d
    FROM events CROSS JOIN (VALUES (30), (90), (180)) AS w(days)
    WHERE type = 'authority.fell_short' AND text(d, 'preview') = 'false' AND json_extract_string(d, '$.reasons[0].rule') = 'per_action'
)
WHERE covered(t, t + days * 86400) QUALIFY row_number() OVER (PARTITION BY kind, customer, days ORDER BY moment, minor(d, 'amount')) = 1
ORDER BY kind, days, ratio;

-- figure: kinds_near_the_limit
SELECT DISTINCT text(d, 'kind') AS kind FROM events WHERE type = 'authority.fell_short' AND text(d, 'preview') = 'false' ORDER BY kind;

-- figure: first_problems
-- Customers' first problems with a team and complete days after them, of all time and during the trial.
WITH policies AS (
    SELECT epoch(CAST(text(d, 'policy.effective_from') AS TIMESTAMP))::BIGINT AS begins,
           epoch(CAST(text(d, 'policy.trial.until') AS TIMESTAMP))::BIGINT AS ends, d->'trial_teams' AS teams
    FROM events WHERE type = 'policy.published'
), spans AS (
    SELECT 'ever' AS span, 0 AS begins, 20000000000 AS ends UNION ALL SELECT 'trial', begins, ends FROM policies WHERE ends IS NOT NULL
)
SELECT span, days, team, t, bought_in(customer, t - 1, t + days * 86400)::INT AS came,
       json_contains((SELECT any_value(teams) FROM policies WHERE ends IS NOT NULL), to_json(team)) AS drawn
FROM problems CROSS JOIN spans CROSS JOIN (VALUES (30), (90), (180)) AS w(days)
WHERE team IS NOT NULL AND t >= begins AND t < ends AND covered(t, t + days * 86400)
QUALIFY row_number() OVER (PARTITION BY span, days, customer ORDER BY t, name) = 1 ORDER BY span, days, team, t;

-- figure: raised
-- A limit of a role, raised for some teams while that of all others stayed; without a limit nothing was allowed.
WITH published AS (
    SELECT CAST(text(d, 'version') AS INT) AS version, epoch(CAST(text(d, 'policy.effective_from') AS TIMESTAMP))::BIGINT AS t, d->'policy' AS policy
    FROM events WHERE type = 'policy.published'
), teams AS (
    SELECT DISTINCT unnest(json_keys(policy, '$.teams')) AS team FROM published
), limits AS (
    SELECT version, t, team, kind,
           coalesce(TRY_CAST(json_extract_string(policy, '$.teams.' || team || '.limits.agent.' || kind) AS DECIMAL(18, 2)),
                    TRY_CAST(json_extract_string(policy, '$.roles.agent.limits.' || kind) AS DECIMAL(18, 2)), 0) AS most,
           coalesce(TRY_CAST(json_extract_string(policy, '$.roles.agent.limits.' || kind) AS DECIMAL(18, 2)), 0) AS common
    FROM published CROSS JOIN teams CROSS JOIN (VALUES ('refund'), ('credit'), ('keep_item')) AS k(kind)
)
SELECT new.kind, new.t, list(team ORDER BY team) AS teams FROM limits AS new
JOIN limits AS old USING (team, kind) WHERE old.version = new.version - 1 AND new.most > old.most AND new.common = old.common
GROUP BY new.kind, new.version, new.t ORDER BY new.kind, new.t;
