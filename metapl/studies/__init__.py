"""Many runs, and what they say together.

Inside: the specification of a study (conditions × arms × seeds), its execution, paired differences with their
intervals, and the tables of them; the search for settings of each arm; and the comparison of estimators at one snapshot
of training.

    specification, checks ─► older ─► execution ─► folder ─► results ─► tables
    search_space ─► search ─► search_result;  snapshot ─► comparison

Floor 6: imports training and every floor below, but not `serving`; reporting and the command line may import it.
"""
