-- Customers: purchases, and retention by cohort of first purchase, from the definitions of the design page.

-- figure: bought
CREATE OR REPLACE TABLE bought AS
SELECT text(d, 'customer_id') AS customer, currency(d, 'total') AS currency, moment FROM events
WHERE type = 'purchase.completed' AND text(d, 'customer_id') IS NOT NULL;

-- figure: purchases
SELECT currency, count(*) AS n FROM bought GROUP BY ALL ORDER BY currency;

-- figure: retention
WITH firsts AS (
    SELECT currency, customer, min(moment) AS begin FROM bought GROUP BY ALL
), judged AS (
    SELECT firsts.*, strftime(begin, '%Y-%m') AS cohort, days,
           begin + to_days(days) <= (SELECT max(moment) FROM bought b WHERE b.currency = firsts.currency) AS over,
           EXISTS (FROM bought b WHERE b.currency = firsts.currency AND b.customer = firsts.customer
                   AND b.moment > begin AND b.moment <= begin + to_days(days)) AS again
    FROM firsts CROSS JOIN (VALUES (30), (90), (180)) AS w(days)
)
SELECT currency, cohort, count(DISTINCT customer) AS customers,
       share(count(*) FILTER (days = 30 AND over AND again), count(*) FILTER (days = 30 AND over)) AS days_30,
       share(count(*) FILTER (days = 90 AND over AND again), count(*) FILTER (days = 90 AND over)) AS days_90,
       share(count(*) FILTER (days = 180 AND over AND again), count(*) FILTER (days = 180 AND over)) AS days_180
FROM judged GROUP BY ALL ORDER BY currency, cohort;
