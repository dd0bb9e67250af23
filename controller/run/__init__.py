"""The execution of runs: rounds, their steps, and the driver."""
