"""The controller: runs, adaptations, adapters and aliases, and the workers that drive trials."""
