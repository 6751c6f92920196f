"""Run types, one file each: how the inputs of a run are built, and how it is computed."""
