"""The execution of trials: taken from the queue, executed, and finished under a fenced lease."""
