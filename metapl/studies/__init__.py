"""Many runs: a study as a file, its execution, statistics of paired seeds, tables, searches, comparisons of estimators.

    specification, checks ─► execution ─► folder ─► results ─► tables
    search_space ─► search ─► search_result;  snapshot ─► comparison

May import training and all below it. Reporting and the command line may import it; serving may not.
"""
