"""Files and text: what is written whole or not at all, checksums, schemas of JSON, tables, and escapes for strangers' text.

Stands low: may import the registry alone, and every folder above may import it.
"""
