-- Recognition, training, ideas, morale and retention, from the definitions of the design page.

-- figure: thanks
CREATE OR REPLACE TABLE thanks AS
SELECT text(d, 'receiver_id') AS receiver, text(d, 'reason') AS reason, coalesce(CAST(text(d, 'points') AS INT), 0) AS points,
       text(d, 'interaction_id') AS interaction, coalesce(text(d, 'giver_kind'), 'not said') AS giver
FROM events WHERE type = 'recognition.given';

-- figure: given
SELECT count(*) AS given, count(DISTINCT receiver) AS people_thanked, coalesce(sum(points), 0)::BIGINT AS points,
       count(interaction) AS with_interaction FROM thanks;

-- figure: by_giver
SELECT giver, count(*) AS n FROM thanks GROUP BY ALL ORDER BY giver;

-- figure: by_team
WITH members AS (
    SELECT employee, unnest(teams) AS team FROM (
        SELECT text(d, 'employee_id') AS employee, json_extract_string(arg_max(d, moment), '$.team_ids[*]') AS teams
        FROM events WHERE type IN ('employee.joined', 'employee.changed') GROUP BY 1)
)
SELECT team, (SELECT count(*) FROM thanks JOIN members m ON m.employee = receiver WHERE m.team = members.team) AS n
FROM members GROUP BY team HAVING count(*) >= 5 AND n > 0 ORDER BY team;

-- figure: reasons
SELECT reason, count(*) AS times FROM thanks GROUP BY ALL ORDER BY times DESC, reason;

-- figure: acts
CREATE OR REPLACE TABLE acts AS
SELECT text(d, 'agent_id') AS agent, text(d, 'kind') AS kind, text(d, 'interaction_id') AS interaction, moment FROM events
WHERE type IN ('action.taken', 'action.reported') OR (type = 'action.held' AND text(d, 'escalation_id') IS NULL);

-- figure: praised
SELECT kind, count(*) AS n FROM thanks JOIN acts USING (interaction) GROUP BY ALL ORDER BY kind;

-- figure: voices
WITH said AS (
    SELECT split_part(type, '.', 1) AS what, coalesce(text(d, 'idea_id'), text(d, 'obstacle_id')) AS name, moment FROM events
    WHERE type IN ('idea.submitted', 'obstacle.reported')
), answered AS (
    SELECT split_part(type, '.', 1) AS what, coalesce(text(d, 'idea_id'), text(d, 'obstacle_id')) AS name, moment AS answered,
           text(d, 'decision') AS decision FROM events WHERE type IN ('idea.decided', 'obstacle.answered')
)
SELECT what, count(*) AS said, count(answered) AS answered, median(seconds(moment, answered) / 86400) FILTER (answered IS NOT NULL) AS median_days_to_answer,
       list(seconds(moment, answered) / 86400 ORDER BY seconds(moment, answered)) FILTER (answered IS NOT NULL) AS median_days_to_answer_of,
       list_sort(list(decision) FILTER (decision IS NOT NULL)) AS decisions
FROM said LEFT JOIN answered USING (what, name) GROUP BY what ORDER BY what;

-- figure: morale
WITH asked AS (
    SELECT text(d, 'period') AS period, text(d, 'team_id') AS team, CAST(text(d, 'invited') AS INT) AS invited,
           CAST(text(d, 'respondents') AS INT) AS respondents, CAST(text(d, 'score') AS DOUBLE) AS score,
           CAST(text(d, 'best') AS DOUBLE) AS best, CAST(text(d, 'worst') AS DOUBLE) AS worst,
           row_number() OVER (PARTITION BY text(d, 'period') ORDER BY CAST(text(d, 'respondents') AS INT), text(d, 'team_id')) AS place,
           count(*) FILTER (CAST(text(d, 'respondents') AS INT) < 5) OVER (PARTITION BY text(d, 'period')) AS few
    FROM events WHERE type = 'morale.surveyed'
)
SELECT period, team, place <= CASE few WHEN 1 THEN 2 ELSE few END AS suppressed,
       CASE WHEN NOT suppressed THEN invited END AS invited, CASE WHEN NOT suppressed THEN respondents END AS respondents,
       CASE WHEN NOT suppressed THEN score END AS score, CASE WHEN NOT suppressed THEN worst END AS worst,
       CASE WHEN NOT suppressed THEN best END AS best
FROM asked ORDER BY period, team;

-- figure: roles
CREATE OR REPLACE TABLE roles AS
WITH told AS (
    SELECT text(d, 'employee_id') AS employee, text(d, 'role') AS role, moment,
           lag(text(d, 'role')) OVER (PARTITION BY text(d, 'employee_id') ORDER BY moment, position) AS before
    FROM events WHERE type IN ('employee.joined', 'employee.changed')
), left_us AS (
    SELECT text(d, 'employee_id') AS employee, max(moment) AS left_at FROM events WHERE type = 'employee.left' GROUP BY ALL
)
SELECT employee, role, before, moment AS began, lead(moment) OVER (PARTITION BY employee ORDER BY moment) AS moved, left_at
FROM told LEFT JOIN left_us USING (employee) WHERE role IS DISTINCT FROM before;

-- figure: careers
WITH used AS (
    SELECT before, role, employee,
           (SELECT count(*) FROM acts WHERE agent = employee AND moment >= began - INTERVAL 90 DAYS AND moment < began) AS b,
           (SELECT count(*) FROM acts WHERE agent = employee AND moment >= began AND moment < began + INTERVAL 90 DAYS) AS a
    FROM roles WHERE before IS NOT NULL
)
SELECT before AS "from", role AS "to", CASE WHEN count(DISTINCT employee) >= 5 THEN count(DISTINCT employee) END AS people,
       count(DISTINCT employee) < 5 AS suppressed, CASE WHEN NOT suppressed THEN sum(b)::BIGINT END AS used_before,
       CASE WHEN NOT suppressed THEN sum(a)::BIGINT END AS used_after
FROM used GROUP BY before, role ORDER BY before, role;

-- figure: training
WITH done AS (
    SELECT text(d, 'employee_id') AS employee, text(d, 'course_id') AS course, moment FROM events WHERE type = 'training.completed'
), in_force AS (
    SELECT arg_max(d -> '$.policy.roles', position) AS roles FROM events WHERE type = 'policy.published'
), opened AS (
    SELECT DISTINCT course, needs.key AS kind
    FROM in_force, json_each(roles) AS role, json_each(role.value -> '$.requires') AS needs,
         unnest(json_extract_string(needs.value, '$[*]')) AS _(course)
)
SELECT course, (SELECT list_sort(list(kind)) FROM opened o WHERE o.course = done.course) AS opens, count(*) AS completions, count(DISTINCT employee) AS people,
       sum((SELECT count(*) FROM acts JOIN opened o ON o.kind = acts.kind WHERE o.course = done.course AND agent = employee
            AND acts.moment >= done.moment - INTERVAL 90 DAYS AND acts.moment < done.moment))::BIGINT AS used_before,
       sum((SELECT count(*) FROM acts JOIN opened o ON o.kind = acts.kind WHERE o.course = done.course AND agent = employee
            AND acts.moment >= done.moment AND acts.moment < done.moment + INTERVAL 90 DAYS))::BIGINT AS used_after
FROM done GROUP BY course ORDER BY course;

-- figure: spells
CREATE OR REPLACE TABLE spells AS
SELECT role, employee, greatest(0, seconds(began, coalesce(least(moved, CASE WHEN moved IS NULL THEN left_at END), (SELECT max(recorded) FROM events)))
       / (365.25 / 12 * 86400)) AS months, moved IS NULL AND left_at IS NOT NULL AS gone FROM roles;

-- figure: staying
WITH steps AS (
    SELECT role, months, count(*) FILTER (gone) AS d,
           (SELECT count(*) FROM spells o WHERE o.role = s.role AND o.months >= s.months) AS n FROM spells s GROUP BY ALL
), marks AS (
    SELECT role, mark, (SELECT product((n - d) / n) FROM steps WHERE steps.role = r.role AND months <= mark) AS share,
           (SELECT sum(CASE WHEN n > d THEN d / (n * (n - d)) END) FROM steps WHERE steps.role = r.role AND months <= mark) AS variance
    FROM (SELECT role, max(months) AS longest FROM spells GROUP BY role) r, (VALUES (3), (6), (12), (24), (36)) AS m(mark)
    WHERE mark <= longest
)
SELECT role, count(DISTINCT employee) < 5 AS suppressed, CASE WHEN NOT suppressed THEN count(*) END AS n,
       CASE WHEN NOT suppressed THEN count(*) FILTER (gone) END AS "left",
       CASE WHEN NOT suppressed THEN coalesce((SELECT list({'months': mark, 'staying': coalesce(share, 1.0), 'variance': variance} ORDER BY mark) FROM marks WHERE marks.role = spells.role), []) ELSE [] END AS curve
FROM spells GROUP BY role ORDER BY role;
