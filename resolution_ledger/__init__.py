"""The public face: the command line's entry, under a name that no other program has."""
