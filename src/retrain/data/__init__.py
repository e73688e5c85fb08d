"""What comes in: sources, the contract, the snapshot and its windows."""
