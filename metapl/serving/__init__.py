"""A finished run put to use.

Inside: predictions for fresh examples, export to a folder that needs no data and no configuration, the loading of such
a folder, and the model card that goes with it.

Floor 6: imports training and every floor below, but not `studies`; the command line may import it.
"""
