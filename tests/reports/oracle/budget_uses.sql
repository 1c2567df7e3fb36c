-- The use of every budget over the life of its period, and the contacts of every agent.

-- figure: contacts
CREATE OR REPLACE TABLE contacts AS
SELECT agent, count(DISTINCT interaction) AS contacts FROM (
    SELECT text(d, 'interaction_id') AS interaction,
           unnest([text(d, 'agent_id'), text(d, 'to_agent_id'), text(d, 'from_agent_id')]) AS agent
    FROM events WHERE type LIKE 'interaction.%') GROUP BY agent;

-- figure: budget_uses
CREATE OR REPLACE TABLE budget_uses AS
WITH holds AS (
    SELECT position, text(d, 'holder') AS holder, text(d, 'period') AS period, currency(d, 'granted') AS currency,
           coalesce(list_sum(list_transform(json_extract_string(d, '$.holds[*].amount.amount'),
                    lambda x: CAST(CAST(x AS DECIMAL(18, 3)) * pow(10, digits(currency(d, 'granted'))) AS BIGINT))), 0) AS held
    FROM events WHERE type = 'budget.opened'
), granted AS (
    SELECT text(d, 'holder') AS holder, text(d, 'period') AS period, coalesce(currency(d, 'amount'), currency(d, 'granted'), currency(d, 'reserved')) AS currency,
           sum(CASE type
               WHEN 'budget.opened' THEN CASE WHEN text(d, 'reopened') = 'true' THEN 0
                    ELSE minor(d, 'granted') + minor(d, 'carried_over') END + held
               WHEN 'budget.granted' THEN minor(d, 'amount')
               WHEN 'action.reversed' THEN CASE WHEN text(d, 'recovered') = 'true' AND text(d, 'late') = 'true'
                    AND text(d, 'basis') IS DISTINCT FROM 'entitlement' AND text(d, 'basis') IS DISTINCT FROM 'correction'
                    THEN minor(d, 'amount') ELSE 0 END
               WHEN 'budget.closed' THEN -coalesce(minor(d, 'reserved'), 0)
               ELSE minor(d, 'amount') * CASE text(d, 'direction') WHEN 'in' THEN 1 ELSE -1 END END) AS granted
    FROM events LEFT JOIN holds USING (position)
    WHERE type IN ('budget.opened', 'budget.granted', 'budget.transferred', 'budget.drawn', 'action.reversed')
       OR (type = 'budget.closed' AND json_exists(d, '$.reserved'))
    GROUP BY ALL
), counted AS (
    SELECT type, d, CASE WHEN coalesce(text(d, 'basis'), 'goodwill') = 'goodwill' THEN minor(d, 'amount')
                         ELSE minor(d, 'amount') - coalesce(minor(d, 'owed'), minor(d, 'amount')) END AS counted
    FROM events WHERE type IN ('action.taken', 'action.settled', 'action.charged', 'action.reversed')
), spent AS (
    SELECT text(d, 'holder') AS holder, text(d, 'period') AS period, currency(d, 'amount') AS currency,
           sum(CASE WHEN type = 'action.reversed' THEN CASE WHEN text(d, 'recovered') = 'true' AND text(d, 'late') IS DISTINCT FROM 'true'
                    THEN -counted ELSE 0 END ELSE counted END) AS spent
    FROM counted GROUP BY ALL
)
SELECT holder, period, currency, granted, coalesce(spent, 0) AS spent
FROM granted LEFT JOIN spent USING (holder, period, currency);
