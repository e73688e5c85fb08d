"""One thin module per DVC stage: read, call, write."""
