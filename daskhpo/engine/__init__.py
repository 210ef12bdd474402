"""The engine: coordinator, ledger and journal, and the sessions that run them."""
