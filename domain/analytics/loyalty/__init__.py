"""What may be claimed of an action's worth: the ladder from a description to an effect (domain language: Loyalty)."""
