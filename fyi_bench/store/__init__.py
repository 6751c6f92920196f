"""Results on disk: run dirs, records, locks, checkpoints, merging."""
