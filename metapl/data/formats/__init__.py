"""File formats, one file each: CSV, NumPy arrays, images, tar shards, pickles of plain values.

Every reader checks sizes before it decodes (`limits`), and runs nothing that a file contains. `sources` decides what
the content means.

Floor 3, within `metapl.data`: imports `core`, `files` and `registry`; `metapl.data.sources` is what uses it.
"""
