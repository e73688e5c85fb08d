"""What a person reads: the terminal summary, the HTML report and its plots."""
