"""What comes in: sources, the schema, the snapshot and its windows."""
