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

-- figure: incomplete
SELECT count(DISTINCT text(d, 'interaction_id')) AS n FROM events
WHERE type IN ('interaction.transferred', 'interaction.resolved', 'interaction.reopened')
  AND text(d, 'interaction_id') NOT IN (SELECT text(d, 'interaction_id') FROM events WHERE type = 'interaction.opened');

-- figure: paths
FROM interactions ORDER BY name;

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
       stddev_samp(transfers) / sqrt(count(*)) AS mean_transfers_error,
       share(count(*) FILTER (came_back), count(*)) AS came_back_to_a_team,
       share(count(*) FILTER (told > 0 AND repeated > 0), count(*) FILTER (told > 0)) AS stories_repeated,
       share(count(*) FILTER (highest = 1), count(highest)) AS first_line_only,
       share(count(*) FILTER (moved_up), count(highest)) AS moved_up,
       share(count(*) FILTER (reopened > 0), count(*)) AS reopened,
       share(count(*) FILTER (known AND back), count(*) FILTER (known)) AS repeat_contact,
       {'n': count(acted), 'median': median(greatest(0, seconds(opened, acted)) / 3600) FILTER (acted IS NOT NULL),
        'p90': quantile_cont(greatest(0, seconds(opened, acted)) / 3600, 0.9) FILTER (acted IS NOT NULL),
        'median_of': list(greatest(0, seconds(opened, acted)) / 3600 ORDER BY seconds(opened, acted)) FILTER (acted IS NOT NULL),
        'p90_of': list(greatest(0, seconds(opened, acted)) / 3600 ORDER BY seconds(opened, acted)) FILTER (acted IS NOT NULL)} AS hours_to_first_action,
       {'n': count(resolved), 'median': median(greatest(0, seconds(opened, resolved)) / 3600) FILTER (resolved IS NOT NULL),
        'p90': quantile_cont(greatest(0, seconds(opened, resolved)) / 3600, 0.9) FILTER (resolved IS NOT NULL),
        'median_of': list(greatest(0, seconds(opened, resolved)) / 3600 ORDER BY seconds(opened, resolved)) FILTER (resolved IS NOT NULL),
        'p90_of': list(greatest(0, seconds(opened, resolved)) / 3600 ORDER BY seconds(opened, resolved)) FILTER (resolved IS NOT NULL)} AS hours_to_resolution
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
           min(score) AS lowest, max(score) AS highest,
           count(*) FILTER (CASE WHEN abs(best - worst) = 1 THEN score = best
                            ELSE (score - worst) / (best - worst) >= 0.75 END) AS good,
           count(*) FILTER (score IN (9, 10)) AS promoters, count(*) FILTER (score BETWEEN 0 AND 6) AS detractors
    FROM said GROUP BY ALL
), rated AS (
    SELECT *, (promoters + 0.75) / (n + 3) AS p, (detractors + 0.75) / (n + 3) AS q, instrument = 'nps' AND worst = 0 AND best = 10 AS nps,
           instrument IN ('csat', 'review') AS shared FROM counted
)
SELECT instrument, worst, best, n, mean, standard_error, [least(worst, best, lowest), greatest(worst, best, highest)] AS ends,
       CASE WHEN shared THEN CASE WHEN abs(best - worst) = 1 THEN best ELSE worst + 0.75 * (best - worst) END END AS threshold,
       CASE WHEN shared THEN share(good, n) END AS satisfied,
       CASE WHEN nps THEN 100 * (promoters - detractors) / n END AS points,
       CASE WHEN nps THEN [greatest(-100, 100 * (p - q - 1.959963984540054 * sqrt((p + q - (p - q) ** 2) / (n + 3)))),
                           least(100, 100 * (p - q + 1.959963984540054 * sqrt((p + q - (p - q) ** 2) / (n + 3))))] END AS points_interval,
       share(answered, (SELECT count(*) FROM interactions)) AS response
FROM rated JOIN answered USING (instrument) ORDER BY instrument, worst, best;

-- figure: matters
-- Interactions with the goodwill that was given in them, by kind and currency.
CREATE OR REPLACE TABLE given AS
WITH done AS (
    SELECT text(d, 'action_id') AS name, text(d, 'interaction_id') AS interaction, text(d, 'kind') AS kind,
           currency(d, 'amount') AS currency, minor(d, 'amount') AS amount, type FROM events
    WHERE (type IN ('action.taken', 'action.reported') OR (type = 'action.held' AND text(d, 'escalation_id') IS NULL))
      AND coalesce(text(d, 'basis'), 'goodwill') = 'goodwill'
), ended AS (
    SELECT text(d, 'action_id') AS name, type, minor(d, 'amount') AS amount FROM events WHERE type IN ('action.settled', 'action.voided')
)
SELECT interaction, kind, done.currency, CAST(sum(coalesce(ended.amount, done.amount)) AS BIGINT) AS amount
FROM done LEFT JOIN ended USING (name)
WHERE coalesce(ended.type, done.type) IN ('action.taken', 'action.reported', 'action.settled') AND coalesce(ended.amount, done.amount) > 0 GROUP BY ALL;

-- figure: labelled
CREATE OR REPLACE TABLE labelled AS
WITH totals AS (
    SELECT interaction, currency, CAST(sum(amount) AS BIGINT) AS amount FROM given GROUP BY ALL
), bands AS (
    SELECT totals.*, (SELECT max(edge) FROM (VALUES (0), (10), (20), (50), (100), (200), (500), (1000), (2000), (5000), (10000)) AS e(edge)
                      WHERE edge * pow(10, digits(currency)) <= amount) AS low FROM totals
)
SELECT interaction, 'any' AS what, '' AS label, currency, amount FROM totals
UNION ALL SELECT totals.interaction, 'reason', coalesce(reason, 'not said'), currency, amount FROM totals
          JOIN interactions ON interactions.name = totals.interaction
UNION ALL SELECT interaction, 'kind', kind, currency, amount FROM given
UNION ALL SELECT interaction, 'band', CASE WHEN low = 10000 THEN '10000+' ELSE low || '-' ||
    (SELECT min(edge) FROM (VALUES (10), (20), (50), (100), (200), (500), (1000), (2000), (5000), (10000)) AS e(edge) WHERE edge > low) END
    || ' ' || currency, currency, amount FROM bands;

-- figure: consistency
-- Funnel limits around the common share, adjusted for overdispersion with a tenth of the scores winsorised on each side.
WITH divided AS (
    SELECT name, coalesce(reason, 'not said') AS reason, 'channel' AS of, channel AS part FROM interactions WHERE channel IS NOT NULL
    UNION ALL SELECT name, coalesce(reason, 'not said'), 'team', team FROM interactions WHERE team IS NOT NULL
), compared AS (
    SELECT DISTINCT what, label FROM labelled JOIN interactions ON interactions.name = interaction
), sizes AS (
    SELECT what, label, of, part, count(*) AS n FROM compared JOIN divided ON what != 'reason' OR label = reason
    GROUP BY ALL HAVING count(*) >= 30
), counts AS (
    SELECT sizes.*, (SELECT count(DISTINCT interaction) FROM labelled JOIN divided ON divided.name = interaction
                     WHERE labelled.what = sizes.what AND labelled.label = sizes.label AND divided.of = sizes.of
                       AND divided.part = sizes.part) AS k
    FROM sizes
), scored AS (
    SELECT *, sum(k) OVER every AS hits, sum(n) OVER every AS total, count(*) OVER every AS parts,
           (k / n - sum(k) OVER every / sum(n) OVER every)
               / sqrt(sum(k) OVER every / sum(n) OVER every * (1 - sum(k) OVER every / sum(n) OVER every) / n) AS z
    FROM counts WINDOW every AS (PARTITION BY what, label, of)
    QUALIFY count(*) OVER every >= 2 AND sum(k) OVER every BETWEEN 1 AND sum(n) OVER every - 1
), ranked AS (
    SELECT *, row_number() OVER (PARTITION BY what, label, of ORDER BY z, part) AS place FROM scored
), bounded AS (
    SELECT *, max(z) FILTER (place = floor(parts / 10) + 1) OVER every AS low, max(z) FILTER (place = parts - floor(parts / 10)) OVER every AS high
    FROM ranked WINDOW every AS (PARTITION BY what, label, of)
), spread AS (
    SELECT *, greatest(1, avg(least(greatest(z, low), high) ** 2) OVER (PARTITION BY what, label, of)) AS dispersion, hits / total AS common
    FROM bounded
), medians AS (
    SELECT what, label, of, part, labelled.currency, quantile_disc(amount, 0.5) AS median, count(*) AS n, list(amount ORDER BY amount) AS median_of
    FROM labelled JOIN divided ON divided.name = interaction GROUP BY ALL
)
SELECT what, label, of AS by, CAST(hits AS BIGINT) AS k, CAST(total AS BIGINT) AS n, dispersion, part, k AS part_k, spread.n AS part_n,
       z / sqrt(dispersion) AS score, share(k, spread.n) AS given,
       [greatest(0, common - 1.959963984540054 * sqrt(dispersion * common * (1 - common) / spread.n)),
        least(1, common + 1.959963984540054 * sqrt(dispersion * common * (1 - common) / spread.n))] AS limits,
       [greatest(0, common - 3.090232306167813 * sqrt(dispersion * common * (1 - common) / spread.n)),
        least(1, common + 3.090232306167813 * sqrt(dispersion * common * (1 - common) / spread.n))] AS wide_limits,
       (SELECT list({'minor': median, 'currency': currency, 'n': medians.n, 'median_of': median_of} ORDER BY currency) FROM medians
        WHERE medians.what = spread.what AND medians.label = spread.label AND medians.of = spread.of AND medians.part = spread.part) AS medians
FROM spread ORDER BY list_position(['any', 'reason', 'kind', 'band'], what), label, of, part;
