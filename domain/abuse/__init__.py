"""The guard against abuse, pure: what it has seen, its rules, and what they find."""
