"""The role `guard`, which raises flags."""
