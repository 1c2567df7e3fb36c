"""Settings, stream topology, policies, column mappings and server configuration."""
