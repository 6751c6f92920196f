"""What the commands do: plan runs, have them computed, put their records together."""
