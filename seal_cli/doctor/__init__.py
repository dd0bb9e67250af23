"""`seal doctor`'s room: what a set-up needs, checked line by line from where the command runs."""
