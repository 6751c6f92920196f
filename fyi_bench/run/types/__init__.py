"""Kinds of cells, one file each: how its inputs are built, and how it is computed."""
