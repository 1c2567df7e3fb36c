"""The HTTP server's own bounds: heads, bodies, hosts."""
