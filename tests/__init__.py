"""Tests, and attacks as commands: `python -m tests.kill`, `tests.fuzz`, `tests.faults`.

A package because a dependency installs one of this name, which would be found instead.
"""
