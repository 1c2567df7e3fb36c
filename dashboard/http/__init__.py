"""The HTTP server's limits on heads, bodies and hosts."""
