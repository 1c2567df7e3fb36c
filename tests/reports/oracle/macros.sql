-- Shares with Wilson's 95 % interval (Wilson 1927), as every report shows them.
CREATE OR REPLACE MACRO share(k, n) AS CASE WHEN n = 0
    THEN {'k': 0, 'n': 0, 'share': NULL::DOUBLE, 'interval': NULL::DOUBLE[]}
    ELSE {'k': k, 'n': n, 'share': k / n, 'interval': [
        CASE WHEN k = 0 THEN 0.0 ELSE
            (k / n + pow(1.959963984540054, 2) / (2 * n)
             - 1.959963984540054 * sqrt(k / n * (1 - k / n) / n + pow(1.959963984540054, 2) / (4 * n * n)))
            / (1 + pow(1.959963984540054, 2) / n) END,
        CASE WHEN k = n THEN 1.0 ELSE
            (k / n + pow(1.959963984540054, 2) / (2 * n)
             + 1.959963984540054 * sqrt(k / n * (1 - k / n) / n + pow(1.959963984540054, 2) / (4 * n * n)))
            / (1 + pow(1.959963984540054, 2) / n) END]::DOUBLE[]}
    END;
CREATE OR REPLACE MACRO text(d, name) AS json_extract_string(d, '$.' || name);
CREATE OR REPLACE MACRO digits(currency) AS
    CASE currency WHEN 'JPY' THEN 0 WHEN 'KWD' THEN 3 ELSE 2 END;
CREATE OR REPLACE MACRO minor(d, name) AS CAST(
    CAST(json_extract_string(d, '$.' || name || '.amount') AS DECIMAL(18, 3))
    * pow(10, digits(json_extract_string(d, '$.' || name || '.currency'))) AS BIGINT);
CREATE OR REPLACE MACRO currency(d, name) AS json_extract_string(d, '$.' || name || '.currency');
CREATE OR REPLACE MACRO seconds(a, b) AS (epoch_us(b) - epoch_us(a)) / 1e6;
-- Facts as they were last corrected; those that never happened are left out.
CREATE OR REPLACE TABLE facts AS
SELECT events.* REPLACE (coalesce(correct, d) AS d) FROM events LEFT JOIN (
    SELECT text(d, 'source_of') AS source, text(d, 'id_of') AS id, arg_max(json_extract(d, '$.data'), position) AS correct
    FROM events WHERE type = 'fact.corrected' GROUP BY ALL) USING (source, id)
WHERE correct IS NULL OR json_type(correct) != 'NULL';
-- The role and the first team that an employee had at a moment; none before the first fact and after leaving.
CREATE OR REPLACE TABLE posts AS
SELECT text(d, 'employee_id') AS employee, moment AS begin, type != 'employee.left' AS works,
       text(d, 'role') AS role, json_extract_string(d, '$.team_ids[0]') AS team,
       row_number() OVER (ORDER BY moment, list_position(['employee.joined', 'employee.changed', 'employee.left'], type), source, id) AS place
FROM facts WHERE type IN ('employee.joined', 'employee.changed', 'employee.left');
CREATE OR REPLACE MACRO post_of(employee_id, told) AS (
    SELECT CASE WHEN works THEN {'role': role, 'team': team} END FROM posts
    WHERE employee = employee_id AND begin <= told ORDER BY place DESC LIMIT 1);
CREATE OR REPLACE MACRO role_of(employee_id, told) AS post_of(employee_id, told).role;
CREATE OR REPLACE MACRO team_of(employee_id, told) AS post_of(employee_id, told).team;
