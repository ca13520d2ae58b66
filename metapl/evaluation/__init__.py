"""How good something is: classifiers (`metrics`), estimates of a vector (`quality`), and what a call costs (`cost`).

It imports the core and no data. Methods, training and everything above import it.
"""
