"""The demo: an organisation that lives ninety days, published and decided like any upstream's."""
