"""Data: sources, splits, augmentation and batches."""
