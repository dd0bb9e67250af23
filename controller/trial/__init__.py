"""How a trial goes: taken from the queue, made, and ended under a fenced lease."""
