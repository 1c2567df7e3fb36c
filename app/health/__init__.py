"""The checks of `admin doctor`."""
