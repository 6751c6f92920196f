"""What the commands do: plan cells, have them computed, put their records together."""
