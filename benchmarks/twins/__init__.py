"""Every job the plain way: class by class and network by network, one graph for everything, torch's own layers.

They use nothing of the fast paths (grouped gradients, adjoint, fused layers, parts of batches) and share with them
only what says which work it is: the keyed draws, the recipe's values and the initial images. So both give the same
numbers, up to rounding, and a test holds them to it.
"""
