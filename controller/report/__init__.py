"""Reports, costs and estimates of runs."""
