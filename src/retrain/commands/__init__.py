"""The verbs that are not stages: what a person asks between two retrainings."""
