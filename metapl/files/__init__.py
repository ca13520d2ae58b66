"""Files from anywhere, read as data: checked, bounded, and written whole or not at all.

Inside: atomic writing and bounded reading, checks for JSON and TOML of unknown origin, checksums, locks of folders, and
the escaping of text that somebody else wrote. What a particular file holds is known by the folder that writes it.

Floor 2: imports `registry`; every folder above may import it.
"""
