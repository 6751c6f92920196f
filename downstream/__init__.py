"""Synthetic set -> number: the trainer and the tasks that judge a condensed set."""
