"""Whether: comparison, gate, ledger and registry."""
