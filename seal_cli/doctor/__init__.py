"""`seal doctor`: checks a set-up line by line, from the machine that the command runs on."""
