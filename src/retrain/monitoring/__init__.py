"""When: the policies that decide whether a batch is worth a retraining."""
