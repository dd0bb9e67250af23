"""One plug-in a domain: contexts, prompts, compilation to a TrainingSpec, held-out queries, grading."""
