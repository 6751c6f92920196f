"""The sub-commands, thin: each imports its job when it is called."""
