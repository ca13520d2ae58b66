"""Views of examples: operations on images, RandAugment, crops, views of tables, and the presets of sources."""
