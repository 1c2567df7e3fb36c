-- Service quality, from the definitions of the design page.

-- figure: interactions
CREATE OR REPLACE TABLE interactions AS
WITH steps AS (
    SELECT text(d, 'interaction_id') AS name, type, moment, position, d,
           row_number() OVER (PARTITION BY text(d, 'interaction_id') ORDER BY type != 'interaction.opened', moment, position) AS place
    FROM events WHERE type LIKE 'interaction.%'
), opened AS (
    SELECT name, any_value(moment) AS opened, any_value(text(d, 'customer_id')) AS customer, any_value(text(d, 'reason')) AS reason,
           any_value(text(d, 'order_id')) AS order_name, any_value(text(d, 'channel')) AS channel, any_value(text(d, 'team_id')) AS team,
           any_value(CAST(text(d, 'line') AS INT)) AS line
    FROM steps WHERE type = 'interaction.opened' GROUP BY name
), lines AS (
    SELECT name, line, lag(line) OVER (PARTITION BY name ORDER BY place) AS before
    FROM (SELECT name, place, CAST(text(d, 'line') AS INT) AS line FROM steps) WHERE line IS NOT NULL
), teams AS (
    SELECT name, place, team FROM (
        SELECT name, place, team, lag(team) OVER (PARTITION BY name ORDER BY place) AS before FROM (
            SELECT name, place, coalesce(text(d, 'to_team_id'), text(d, 'team_id')) AS team FROM steps
            WHERE type IN ('interaction.opened', 'interaction.transferred')) WHERE team IS NOT NULL)
    WHERE team IS DISTINCT FROM before
), acted AS (
    SELECT text(d, 'interaction_id') AS name, min(moment) AS acted FROM events
    WHERE type = 'action.taken' OR (type = 'action.held' AND text(d, 'escalation_id') IS NULL) OR type = 'action.reported' GROUP BY ALL
), counted AS (
    SELECT name, count(*) FILTER (type = 'interaction.transferred') AS transfers,
           count(*) FILTER (type = 'interaction.reopened') AS reopened,
           min(moment) FILTER (type = 'interaction.resolved') AS first_resolved,
           CASE WHEN arg_max(type, place) FILTER (type IN ('interaction.resolved', 'interaction.reopened')) = 'interaction.resolved'
                THEN max(moment) FILTER (type = 'interaction.resolved') END AS resolved,
           count(*) FILTER (text(d, 'story_repeated') = 'true') AS repeated, count(text(d, 'story_repeated')) AS told
    FROM steps GROUP BY name
)
SELECT opened.* EXCLUDE (line), counted.* EXCLUDE (name), acted,
       (SELECT max(line) FROM lines WHERE lines.name = opened.name) AS highest,
       coalesce((SELECT bool_or(line > before) FROM lines WHERE lines.name = opened.name), false) AS moved_up,
       (SELECT count(*) > count(DISTINCT team) FROM teams WHERE teams.name = opened.name) AS came_back
FROM opened JOIN counted USING (name) LEFT JOIN acted USING (name);

-- figure: judged
CREATE OR REPLACE TABLE judged AS
SELECT a.*, a.customer IS NOT NULL AND a.first_resolved + INTERVAL 7 DAYS <= (SELECT max(recorded) FROM events) AS known,
       EXISTS (FROM interactions b WHERE b.customer = a.customer AND b.opened > a.opened AND b.opened <= a.first_resolved + INTERVAL 7 DAYS) AS back,
       EXISTS (FROM interactions b WHERE b.customer = a.customer AND b.opened > a.opened AND b.opened <= a.first_resolved + INTERVAL 7 DAYS
               AND CASE WHEN a.order_name IS NOT NULL AND b.order_name IS NOT NULL THEN a.order_name = b.order_name
                   ELSE a.reason = b.reason END) AS same_matter
FROM interactions a;

-- figure: groups
WITH labelled AS (
    SELECT 'overall' AS what, '' AS label, * FROM judged
    UNION ALL SELECT 'channel', coalesce(channel, 'not said'), * FROM judged
    UNION ALL SELECT 'team', coalesce(team, 'not said'), * FROM judged
    UNION ALL SELECT 'line', coalesce(CAST(highest AS VARCHAR), 'not said'), * FROM judged
    UNION ALL SELECT 'reason', coalesce(reason, 'not said'), * FROM judged
)
SELECT what, label, count(*) AS interactions, share(count(resolved), count(*)) AS resolved,
       share(count(*) FILTER (known AND transfers = 0 AND reopened = 0 AND NOT same_matter), count(*) FILTER (known)) AS first_contact,
       share(count(*) FILTER (first_resolved IS NOT NULL AND transfers = 0 AND reopened = 0), count(first_resolved)) AS one_touch,
       share(count(*) FILTER (transfers > 0), count(*)) AS transferred, avg(transfers) AS mean_transfers,
       share(count(*) FILTER (came_back), count(*)) AS came_back_to_a_team,
       share(count(*) FILTER (told > 0 AND repeated > 0), count(*) FILTER (told > 0)) AS stories_repeated,
       share(count(*) FILTER (highest = 1), count(highest)) AS first_line_only,
       share(count(*) FILTER (moved_up), count(highest)) AS moved_up,
       share(count(*) FILTER (reopened > 0), count(*)) AS reopened,
       share(count(*) FILTER (known AND back), count(*) FILTER (known)) AS repeat_contact,
       {'n': count(acted), 'median': median(greatest(0, seconds(opened, acted)) / 3600) FILTER (acted IS NOT NULL),
        'p90': quantile_cont(greatest(0, seconds(opened, acted)) / 3600, 0.9) FILTER (acted IS NOT NULL)} AS hours_to_first_action,
       {'n': count(resolved), 'median': median(greatest(0, seconds(opened, resolved)) / 3600) FILTER (resolved IS NOT NULL),
        'p90': quantile_cont(greatest(0, seconds(opened, resolved)) / 3600, 0.9) FILTER (resolved IS NOT NULL)} AS hours_to_resolution
FROM labelled GROUP BY ALL ORDER BY what, interactions DESC, label;

-- figure: satisfaction
WITH said AS (
    SELECT text(d, 'instrument') AS instrument, CAST(text(d, 'score') AS DOUBLE) AS score, CAST(text(d, 'worst') AS DOUBLE) AS worst,
           CAST(text(d, 'best') AS DOUBLE) AS best, name FROM events LEFT JOIN interactions ON text(d, 'interaction_id') = name
    WHERE type = 'feedback.received'
), answered AS (
    SELECT instrument, count(DISTINCT name) AS answered FROM said GROUP BY ALL
), counted AS (
    SELECT instrument, worst, best, count(*) AS n, avg(score) AS mean, stddev_samp(score) / sqrt(count(*)) AS standard_error,
           count(*) FILTER (CASE WHEN abs(best - worst) = 1 THEN score = best
                            ELSE (score - worst) / (best - worst) >= 0.75 END) AS good,
           count(*) FILTER (score IN (9, 10)) AS promoters, count(*) FILTER (score BETWEEN 0 AND 6) AS detractors
    FROM said GROUP BY ALL
), rated AS (
    SELECT *, (promoters + 0.75) / (n + 3) AS p, (detractors + 0.75) / (n + 3) AS q, instrument = 'nps' AND worst = 0 AND best = 10 AS nps,
           instrument IN ('csat', 'review') AS shared FROM counted
)
SELECT instrument, worst, best, n, mean, standard_error,
       CASE WHEN shared THEN CASE WHEN abs(best - worst) = 1 THEN best ELSE worst + 0.75 * (best - worst) END END AS threshold,
       CASE WHEN shared THEN share(good, n) END AS satisfied,
       CASE WHEN nps THEN 100 * (promoters - detractors) / n END AS points,
       CASE WHEN nps THEN [100 * (p - q - 1.959963984540054 * sqrt((p + q - (p - q) ** 2) / (n + 3))),
                           100 * (p - q + 1.959963984540054 * sqrt((p + q - (p - q) ** 2) / (n + 3)))] END AS points_interval,
       share(answered, (SELECT count(*) FROM interactions)) AS response
FROM rated JOIN answered USING (instrument) ORDER BY instrument, worst, best;
