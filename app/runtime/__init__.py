"""Sessions and roles: each connects the layers below it for a command or a process."""
