"""The live page: runs, trials, aliases and the queue for people, from the same process as the API."""
