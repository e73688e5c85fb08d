"""What is yours: where batches come from, how columns are encoded, and extensions of your own."""
