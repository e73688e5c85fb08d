"""Everything that is written to MLflow passes here."""
