"""The effect of actions on customers' loyalty: evidence levels from a description to an experiment."""
