"""Text as words that can be compared: for the judges, and for what is the same fact."""
