"""Real set -> synthetic set: methods, the one engine, FYI, augmentation, the ImageSet."""
