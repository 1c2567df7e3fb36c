-- The use of authority by employee, from the definitions of the design page; `budget_uses.sql` comes before.

-- figure: periods
SELECT DISTINCT text(d, 'period') AS period FROM events WHERE type = 'budget.opened';

-- figure: contacts
SELECT agent, contacts FROM contacts WHERE contacts >= 10;

-- figure: budgets
SELECT holder[7:] AS employee, period, currency, granted, spent FROM budget_uses WHERE holder LIKE 'agent:%' AND granted > 0;

-- figure: opened
SELECT DISTINCT text(d, 'holder')[7:] AS employee, text(d, 'period') AS period FROM events
WHERE type = 'budget.opened' AND text(d, 'holder') LIKE 'agent:%';

-- figure: uses
WITH done AS (
    SELECT text(a.d, 'agent_id') AS employee, text(a.d, 'kind') AS kind, currency(a.d, 'amount') AS currency,
           text(a.d, 'period') AS period, a.moment,
           coalesce((SELECT minor(p.d, 'amount') FROM events p WHERE p.type = 'action.settled' AND text(p.d, 'action_id') = text(a.d, 'action_id')),
                    CASE WHEN a.type = 'action.taken' THEN minor(a.d, 'amount') END) AS amount
    FROM events a WHERE a.type IN ('action.taken', 'action.held') AND text(a.d, 'basis') = 'goodwill' AND text(a.d, 'escalation_id') IS NULL
    UNION ALL
    SELECT text(f.d, 'agent_id'), text(f.d, 'kind'), currency(f.d, 'amount'), text(c.d, 'period'), f.moment, minor(f.d, 'amount')
    FROM facts f LEFT JOIN events c ON c.type = 'action.charged' AND f.position = CAST(text(c.d, 'relates_to') AS BIGINT)
    WHERE f.type = 'action.reported' AND coalesce(text(f.d, 'basis'), 'goodwill') = 'goodwill'
)
SELECT employee, kind, currency, period, count(*) AS actions, CAST(sum(amount) AS BIGINT) AS used, max(moment) AS last
FROM done WHERE amount IS NOT NULL GROUP BY ALL;

-- figure: people
SELECT text(d, 'employee_id') AS employee, arg_max(type, place) = 'employee.left' AS has_left,
       arg_max(text(d, 'role'), place) FILTER (type != 'employee.left') AS role,
       arg_max(CAST(json_extract(d, '$.team_ids') AS VARCHAR[]), place) FILTER (type != 'employee.left') AS teams
FROM (SELECT *, row_number() OVER (ORDER BY moment, list_position(['employee.joined', 'employee.changed', 'employee.left'], type), source, id) AS place
      FROM facts WHERE type IN ('employee.joined', 'employee.changed', 'employee.left')) GROUP BY ALL;

-- figure: courses
SELECT DISTINCT text(d, 'employee_id') AS employee, text(d, 'course_id') AS course, text(d, 'valid_until') AS until
FROM facts WHERE type = 'training.completed';
