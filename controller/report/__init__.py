"""What a run found, cost and would take."""
