"""Architectures: the ConvNet family, the 720-point search space, and the zoo for cross-architecture tests."""
