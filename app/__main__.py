"""`python -m app` is `resolution-ledger`."""

from resolution_ledger.__main__ import main

main()
