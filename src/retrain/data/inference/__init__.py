"""What `retrain init` guesses from a table that no schema describes yet."""
