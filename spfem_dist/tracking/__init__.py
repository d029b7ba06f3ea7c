"""MLflow: runs, metrics by samples seen, pictures, and trained priors as registered models. Used by rank 0 only."""
