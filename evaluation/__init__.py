"""Generation, scoring, re-scoring of saved predictions, and reports."""
