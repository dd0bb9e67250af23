"""One file per command group. Heavy imports are inside the commands, so `--help` stays fast."""
