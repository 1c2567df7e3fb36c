"""What happened and what is allowed: pure rules, no I/O, no clock, no ids made here."""
