"""One run: a configuration, the objects that it names, the training loop, and the folder that a run leaves.

    config.py           the configuration, its limits and its presets; importing it does not import torch
    options.py          fields with help and limits, of which it is made
    experiment.py       a configuration turned into objects: data, split, networks, estimator, optimisers
    architectures.py    the networks of a configuration
    optimizers.py       its optimisers
    loop.py             the training loop of one phase, as an iterator of events
    seen.py             what methods that are fitted at once may look at
    phases.py           a whole run: phase by phase, and the evaluation at the end; watching.py has the lines of its log
    population.py       several runs as one vectorised program
    threads.py          how many threads torch takes for it on a CPU
    nonfinite.py        steps whose numbers are not finite
    stored.py           where a run stands, in a file; state_files.py has the names of these files
    keeping.py          when such files are written, as flags; keeper.py writes them
    session.py          runs that begin, or go on; several.py finds their folders, changes.py what is not as it was
    pace.py             says where a step took far longer than the others
    progress.py         how far a run is, by its files; unfinished.py ends one early, for a report
    run_folder.py       the folder of a run, written and read; machine.py is what it was computed with
    run_files.py        checks the files of a run, form_details.py what they say of the data, fitting.py the weights
    checkpoint.py       networks in safetensors files
    loggers.py          metrics.jsonl, TensorBoard, trackio

Floor 5: imports every floor below; studies, serving, reporting and the command line may import it.
"""
