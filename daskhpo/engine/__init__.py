"""The engine: the pure coordinator with its ledger and journal, and the session around it."""
