"""Files and text: storage, checksums, schemas of JSON, tables, and escapes for the texts of strangers.

Stands low: it may import the registry alone, and every folder above may import it.
"""
