"""`python -m app` is `resolution-ledger`."""

from app.cli import main

main()
