"""What everything rests on: errors, the notation `NAME:key=value`, entry points of plug-ins, whose code is trusted.

The lowest folder: it imports nothing of metapl, and every other folder may import it.
"""
