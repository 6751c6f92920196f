"""From a plan to results: one executor for every command."""
