"""Domain plug-ins. Each defines contexts, prompts, compilation to a TrainingSpec, held-out queries and the judge."""
