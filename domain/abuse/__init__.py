"""The guard against misuse, pure: the history that it has seen, its rules, and their findings."""
