"""Parts that all consumers use: broker, requests, source tokens, alarm watch."""
