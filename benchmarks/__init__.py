"""The benchmark: every job against a plain twin, written the way the papers' code does it.

`jobs` says what is timed, `twins` holds the plain ways, `side` is the process one of them runs in, `measure` lets the
processes take turns, `run` is the command. docs/speed.md explains how the numbers are to be read.
"""
