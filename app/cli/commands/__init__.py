"""The commands, one module for each group of them; importing a module registers its commands."""
