"""Real data sets as uint8 tensors: loaders, channel statistics, built-in shapes."""
