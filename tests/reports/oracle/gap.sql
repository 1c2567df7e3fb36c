-- The empowerment gap, from the definitions of the design page. Requests of goodwill alone.

-- figure: asked
CREATE OR REPLACE TABLE asked AS
WITH told AS (
    SELECT position, moment, '' AS source, text(d, 'escalation_id') AS name, text(d, 'kind') AS kind, text(d, 'reason') AS reason,
           text(d, 'role') AS role, text(d, 'team_id') AS team, currency(d, 'amount') AS currency, minor(d, 'amount') AS asked,
           text(d, 'agent_id') AS agent, text(d, 'interaction_id') AS interaction, text(d, 'order_id') AS order_name,
           text(d, 'customer_id') AS customer, json_extract_string(d, '$.reasons[*].rule') AS rules,
           coalesce(text(d, 'agent_kind'), 'human') AS agent_kind
    FROM events WHERE type = 'escalation.requested' AND text(d, 'basis') = 'goodwill'
    UNION ALL
    SELECT position, moment, source, text(d, 'escalation_id'), text(d, 'kind'), text(d, 'reason'),
           role_of(text(d, 'requested_by'), moment), team_of(text(d, 'requested_by'), moment),
           currency(d, 'amount'), minor(d, 'amount'), NULL, NULL, NULL, NULL, NULL, 'not said'
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
           first({'verdict': verdict, 'amount': coalesce(amount, asked),
                  'waited': coalesce(waited, greatest(0, seconds(told.moment, steps.moment)))}
                 ORDER BY verdict != 'approved', CASE WHEN verdict = 'approved' THEN steps.position ELSE -steps.position END) AS step,
           bool_or(verdict = 'denied') AS was_denied
    FROM told JOIN steps USING (source, name) GROUP BY told.position
)
SELECT told.* EXCLUDE (kind, reason, role, team),
       coalesce(kind, 'not said') AS kind, coalesce(reason, 'not said') AS reason, coalesce(role, 'not said') AS role,
       coalesce(team, 'not said') AS team,
       CASE WHEN step.verdict IN ('withdrawn', 'expired') AND was_denied THEN 'denied' ELSE step.verdict END AS outcome,
       step.verdict = 'approved' AND step.amount >= asked AS anyway, step.waited / 3600 AS hours,
       asked / pow(10, digits(currency)) AS units
FROM told LEFT JOIN final USING (position);

-- figure: groups
WITH banded AS (
    SELECT *, (SELECT max(edge) FROM (VALUES (0), (10), (20), (50), (100), (200), (500), (1000), (2000), (5000), (10000)) AS e(edge)
               WHERE edge <= units) AS low FROM asked
), labelled AS (
    SELECT 'overall' AS what, '' AS label, * FROM banded
    UNION ALL SELECT 'kind', kind, * FROM banded
    UNION ALL SELECT 'role', role, * FROM banded
    UNION ALL SELECT 'agent_kind', agent_kind, * FROM banded
    UNION ALL SELECT 'team', team, * FROM banded
    UNION ALL SELECT 'reason', reason, * FROM banded
    UNION ALL SELECT 'band', CASE WHEN low = 10000 THEN '10000+' ELSE low || '-' ||
        (SELECT min(edge) FROM (VALUES (10), (20), (50), (100), (200), (500), (1000), (2000), (5000), (10000)) AS e(edge)
         WHERE edge > low) END || ' ' || currency, * FROM banded
)
SELECT what, label, count(*) AS asked,
       share(count(*) FILTER (anyway), count(*) FILTER (outcome IN ('approved', 'denied'))) AS approved_anyway,
       share(count(*) FILTER (anyway), count(*)) AS of_all_asked,
       median(hours) FILTER (outcome = 'approved') AS median_hours_to_approval,
       quantile_cont(hours, 0.9) FILTER (outcome = 'approved') AS p90_hours_to_approval,
       count(hours) FILTER (outcome = 'approved') AS n_to_approval,
       list(hours ORDER BY hours) FILTER (outcome = 'approved') AS median_hours_to_approval_of,
       list(hours ORDER BY hours) FILTER (outcome = 'approved') AS p90_hours_to_approval_of,
       list(hours ORDER BY hours) FILTER (outcome IN ('approved', 'denied')) AS median_hours_of,
       list(hours ORDER BY hours) FILTER (outcome IN ('approved', 'denied')) AS p90_hours_of,
       count(hours) FILTER (outcome IN ('approved', 'denied')) AS n,
       median(hours) FILTER (outcome IN ('approved', 'denied')) AS median_hours,
       quantile_cont(hours, 0.9) FILTER (outcome IN ('approved', 'denied')) AS p90_hours,
       coalesce(fsum(hours) FILTER (outcome IN ('approved', 'denied')), 0) AS hours,
       count(*) FILTER (outcome IN ('withdrawn', 'expired')) AS abandoned,
       count(*) FILTER (outcome IS NULL) AS undecided
FROM labelled GROUP BY ALL ORDER BY what, asked DESC, label;

-- figure: matters
CREATE OR REPLACE TABLE matters AS
WITH short AS (
    SELECT *, [agent, kind, CASE WHEN interaction IS NOT NULL THEN 'i' WHEN order_name IS NOT NULL THEN 'o'
               WHEN customer IS NOT NULL THEN 'c' ELSE currency END,
               coalesce(interaction, order_name, customer, CAST(amount AS VARCHAR))] AS matter
    FROM (SELECT position, moment, text(d, 'agent_id') AS agent, text(d, 'kind') AS kind, text(d, 'reason') AS reason,
                 text(d, 'interaction_id') AS interaction, text(d, 'order_id') AS order_name, text(d, 'customer_id') AS customer,
                 minor(d, 'amount') AS amount, currency(d, 'amount') AS currency
          FROM events WHERE type = 'authority.fell_short' AND text(d, 'outcome') = 'escalate' AND text(d, 'basis') = 'goodwill')
), filed AS (
    SELECT moment, [agent, kind, CASE WHEN interaction IS NOT NULL THEN 'i' WHEN order_name IS NOT NULL THEN 'o'
               WHEN customer IS NOT NULL THEN 'c' ELSE currency END,
               coalesce(interaction, order_name, customer, CAST(asked AS VARCHAR))] AS matter
    FROM asked WHERE agent IS NOT NULL
)
SELECT matter, first(kind ORDER BY position) AS kind, first(reason ORDER BY position) AS reason,
       max(moment) + INTERVAL 7 DAYS <= (SELECT max(recorded) FROM events) AS over,
       bool_or(EXISTS (FROM filed WHERE filed.matter = short.matter
                       AND filed.moment BETWEEN short.moment AND short.moment + INTERVAL 7 DAYS)) AS followed
FROM short GROUP BY matter;

-- figure: silent_gap
SELECT kind, count(*) AS told, count(*) FILTER (NOT over) AS pending,
       share(count(*) FILTER (over AND NOT followed), count(*) FILTER (over)) AS never_asked
FROM matters GROUP BY ROLLUP (kind) ORDER BY kind NULLS FIRST;

-- figure: cannot_do
WITH each_asked AS (
    SELECT kind, reason, count(*) AS asked, count(*) FILTER (anyway) AS approved_anyway,
           coalesce(fsum(hours) FILTER (outcome IN ('approved', 'denied')), 0) AS hours FROM asked GROUP BY ALL
), silent AS (SELECT kind, reason, count(*) AS silent FROM matters WHERE over AND NOT followed GROUP BY ALL)
SELECT kind, reason, coalesce(asked, 0) AS asked, coalesce(approved_anyway, 0) AS approved_anyway,
       coalesce(hours, 0) AS hours, coalesce(silent, 0) AS silent
FROM each_asked FULL JOIN silent USING (kind, reason)
ORDER BY coalesce(asked, 0) + coalesce(silent, 0) DESC, kind, reason;

-- figure: rubber_stamps
SELECT kind, role, count(*) AS n, median(hours * 3600) AS median_seconds,
       list(hours * 3600 ORDER BY hours) AS median_seconds_of FROM asked
WHERE outcome IN ('approved', 'denied') AND hours IS NOT NULL
GROUP BY ALL HAVING n >= 20 AND median_seconds < 30 ORDER BY kind, role;

-- figure: unused
WITH closed AS (
    SELECT text(d, 'holder') AS holder, text(d, 'period') AS period, currency(d, 'spent') AS currency FROM events
    WHERE type = 'budget.closed' AND text(d, 'holder') LIKE 'agent:%'
), used AS (
    SELECT DISTINCT holder, period, currency, spent / granted AS part
    FROM closed JOIN budget_uses USING (holder, period, currency)
    JOIN contacts ON holder = 'agent:' || agent WHERE granted > 0 AND contacts >= 10
)
SELECT count(*) AS budgets, share(count(*) FILTER (part < 0.1), count(*)) AS hardly_touched,
       count(DISTINCT holder) FILTER (part < 0.1) AS agents, fsum(part) / count(*) AS mean_use,
       stddev_samp(part) / sqrt(count(*)) AS standard_error, greatest(1, max(part)) AS most FROM used;

-- figure: procedure
WITH final AS (
    SELECT text(a.d, 'action_id') AS action, text(a.d, 'kind') AS kind, currency(a.d, 'amount') AS currency,
           coalesce(max(minor(p.d, 'amount')) FILTER (p.type = 'action.settled'), minor(a.d, 'amount')) AS amount,
           a.type = 'action.held' AND count(*) FILTER (p.type = 'action.settled') = 0 AS pending,
           count(*) FILTER (p.type = 'action.voided') > 0 AS voided
    FROM events a LEFT JOIN events p ON p.type IN ('action.settled', 'action.voided')
         AND text(p.d, 'action_id') = text(a.d, 'action_id') AND p.position > a.position
    WHERE a.type IN ('action.taken', 'action.held') AND text(a.d, 'basis') = 'goodwill' AND text(a.d, 'escalation_id') IS NULL
    GROUP BY a.position, a.type, a.d
), costs AS (
    SELECT CAST(text(d, 'policy.costs.agent_hour') AS DOUBLE) AS agent, CAST(text(d, 'policy.costs.manager_hour') AS DOUBLE) AS manager,
           coalesce(CAST(text(d, 'policy.costs.return_processing') AS DOUBLE), 0) AS back, text(d, 'policy.currency') AS currency,
           coalesce(CAST(text(d, 'policy.asking.agent_minutes') AS DOUBLE), 14) AS ours, coalesce(CAST(text(d, 'policy.asking.approver_minutes') AS DOUBLE), 8) AS theirs
    FROM events WHERE type = 'policy.published' AND text(d, 'policy.mode') IS DISTINCT FROM 'shadow' ORDER BY position DESC LIMIT 1
), each_action AS (
    SELECT final.*, CASE WHEN costs.currency = final.currency AND agent IS NOT NULL AND manager IS NOT NULL THEN CAST(round((agent * ours + manager * theirs) / 60
        + CASE WHEN kind = 'keep_item' THEN back ELSE 0 END, 2) * 100 AS BIGINT) END AS cost
    FROM final LEFT JOIN costs ON true WHERE NOT pending AND NOT voided
)
SELECT kind, currency, count(*) AS n, sum(amount)::BIGINT AS given, any_value(cost) AS long_way_each, sum(cost)::BIGINT AS long_way,
       CASE WHEN any_value(cost) IS NOT NULL THEN count(*) FILTER (amount < cost) END AS cheaper_than_asking
FROM each_action GROUP BY ALL ORDER BY n DESC, kind, currency;

-- figure: bands
CREATE OR REPLACE TABLE bands AS
WITH RECURSIVE mine AS (
    SELECT role, kind, currency, asked, count(*) AS n, count(*) FILTER (anyway) AS yes
    FROM asked WHERE outcome IN ('approved', 'denied') AND (rules IS NULL OR rules = ['per_action']) GROUP BY ALL
), ranked AS (
    SELECT *, row_number() OVER (PARTITION BY role, kind, currency ORDER BY asked) AS place,
           greatest(30, floor(sum(n) OVER (PARTITION BY role, kind, currency) / 50)) AS fewest FROM mine
), placed(role, kind, currency, place, band, size) AS (
    SELECT role, kind, currency, place, 1, n FROM ranked WHERE place = 1
    UNION ALL
    SELECT r.role, r.kind, r.currency, r.place, p.band + CASE WHEN p.size >= r.fewest THEN 1 ELSE 0 END,
           CASE WHEN p.size >= r.fewest THEN r.n ELSE p.size + r.n END
    FROM placed p JOIN ranked r ON r.role = p.role AND r.kind = p.kind AND r.currency = p.currency AND r.place = p.place + 1
), summed AS (
    SELECT *, max(band) OVER (PARTITION BY role, kind, currency) AS last_band
    FROM (SELECT role, kind, currency, band, sum(n) AS n FROM placed JOIN ranked USING (role, kind, currency, place) GROUP BY ALL)
), merged AS (
    SELECT role, kind, currency, band, CASE WHEN band = last_band AND band > 1 AND n < 30 THEN band - 1 ELSE band END AS into_band FROM summed
)
SELECT * FROM (
    SELECT role, kind, currency, into_band AS band, sum(ranked.n)::BIGINT AS n, sum(yes)::BIGINT AS yes, max(asked) AS up_to
    FROM placed JOIN ranked USING (role, kind, currency, place) JOIN merged USING (role, kind, currency, band) GROUP BY ALL
) QUALIFY min(n) OVER (PARTITION BY role, kind, currency) >= 30;

-- figure: curve
-- Isotonic regression by its min-max formula.
CREATE OR REPLACE TABLE curve AS
WITH runs AS (
    SELECT a.role, a.kind, a.currency, a.band AS low, b.band AS high, sum(c.yes) / sum(c.n) AS mean
    FROM bands a JOIN bands b USING (role, kind, currency) JOIN bands c USING (role, kind, currency)
    WHERE a.band <= b.band AND c.band BETWEEN a.band AND b.band GROUP BY ALL
), best AS (
    SELECT runs.role, runs.kind, runs.currency, bands.band, low, max(mean) AS top FROM runs JOIN bands USING (role, kind, currency)
    WHERE low <= band AND high >= band GROUP BY ALL
), fitted AS (SELECT role, kind, currency, band, min(top) AS smoothed FROM best GROUP BY ALL)
SELECT role, kind, currency, up_to, bands.n, yes AS approved, smoothed,
       share(sum(yes) OVER same, sum(bands.n) OVER same).interval[1] AS lower
FROM bands JOIN fitted USING (role, kind, currency, band)
WINDOW same AS (PARTITION BY role, kind, currency, round(smoothed, 12)) ORDER BY role, kind, currency, up_to;

-- figure: curve_points
FROM curve ORDER BY role, kind, currency, up_to;

-- figure: limits
-- The highest amount asked at which asking costs more than the loss it may prevent, at most twice today's limit.
WITH costs AS (
    SELECT ceil((CAST(text(d, 'policy.costs.agent_hour') AS DOUBLE) * coalesce(CAST(text(d, 'policy.asking.agent_minutes') AS DOUBLE), 14)
              + CAST(text(d, 'policy.costs.manager_hour') AS DOUBLE) * coalesce(CAST(text(d, 'policy.asking.approver_minutes') AS DOUBLE), 8)) / 60 * 100) AS cost,
           text(d, 'policy.currency') AS currency, json_extract(d, '$.policy.roles') AS roles
    FROM events WHERE type = 'policy.published' AND text(d, 'policy.mode') IS DISTINCT FROM 'shadow' ORDER BY position DESC LIMIT 1
), cases AS (
    SELECT * FROM (VALUES (0, 1.0, 0.0), (1, 0.5, 0.0), (2, 2.0, 0.0), (3, 1.0, 0.1), (4, 1.0, 0.25)) AS c(number, factor, drift)
), points AS (
    SELECT curve.*, number, (1 + drift) * up_to AS amount, cost * factor > (1 - lower) * (1 + drift) * up_to + lower * drift * up_to AS dearer,
           CAST(TRY_CAST(json_extract_string(roles, '$.' || role || '.limits.' || kind) AS DECIMAL(18, 2)) * 100 AS BIGINT) AS today, cost
    FROM curve JOIN costs USING (currency) CROSS JOIN cases
), highest AS (
    SELECT role, kind, currency, number, any_value(cost) AS cost, any_value(today) AS today, max(amount) FILTER (dearer) AS free,
           least(max(amount) FILTER (dearer), CASE WHEN max(amount) FILTER (dearer) IS NOT NULL THEN any_value(today) * 2 END) AS highest
    FROM points GROUP BY role, kind, currency, number
), found AS (
    SELECT role, kind, currency, CAST(any_value(cost) AS BIGINT) AS cost, any_value(today) AS today,
           CAST(max(free) FILTER (number = 0) AS BIGINT) AS without_step, CAST(max(highest) FILTER (number = 0) AS BIGINT) AS highest,
           list(CAST(round_even(highest, 0) AS BIGINT) ORDER BY number) FILTER (number > 0) AS cases
    FROM highest GROUP BY role, kind, currency
), within_limit AS (
    SELECT role, kind, currency, count(*) AS n, count(*) FILTER (anyway) AS k FROM asked JOIN found USING (role, kind, currency)
    WHERE outcome IN ('approved', 'denied') AND (rules IS NULL OR rules = ['per_action']) AND asked <= highest GROUP BY ALL
)
SELECT found.*, share(coalesce(k, 0), coalesce(n, 0)) AS approved FROM found LEFT JOIN within_limit USING (role, kind, currency)
ORDER BY role, kind, currency;

-- figure: waited
-- Half a minor unit is rounded to the even one.
SELECT coalesce(fsum(hours) FILTER (outcome IN ('approved', 'denied')), 0) AS hours,
       CAST(round_even(coalesce(fsum(hours) FILTER (outcome IN ('approved', 'denied')), 0)
           * (SELECT arg_max(CAST(text(d, 'policy.costs.customer_hour') AS DOUBLE), position) FROM events
              WHERE type = 'policy.published') * 100, 0) AS BIGINT) AS worth FROM asked;

-- figure: incomplete
SELECT count(DISTINCT (source, text(d, 'escalation_id'))) AS n FROM events WHERE type = 'escalation.outcome_reported'
  AND (source, text(d, 'escalation_id')) NOT IN (SELECT (source, text(d, 'escalation_id')) FROM events WHERE type = 'escalation.reported');

-- figure: met_this_limit
SELECT role, kind, currency, count(*) AS requests, bool_and(rules IS NOT NULL) AS rules_known FROM asked
WHERE rules IS NULL OR rules = ['per_action'] GROUP BY ALL ORDER BY role, kind, currency;

-- figure: obstacles
SELECT 'obstacle ' || text(o.d, 'obstacle_id') AS voice_id, 'obstacle' AS what, text(o.d, 'employee_id') AS employee_id, o.moment AS said, text(o.d, 'text') AS text,
       text(o.d, 'kind') AS kind, a.moment AS answered, text(a.d, 'answered_by') AS answered_by, text(a.d, 'text') AS answer
FROM events o LEFT JOIN events a ON a.type = 'obstacle.answered' AND text(a.d, 'obstacle_id') = text(o.d, 'obstacle_id')
WHERE o.type = 'obstacle.reported' ORDER BY o.moment, voice_id;
