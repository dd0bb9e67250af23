"""One file a command group. Each imports what is heavy inside its commands, so that `--help` stays quick."""
