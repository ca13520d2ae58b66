"""A trained network at work: predictions, and exports with their model card.

May import training and all below it. Reporting and the command line may import it; studies may not.
"""
