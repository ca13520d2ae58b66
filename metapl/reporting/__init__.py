"""Pages about a finished run, a study, a data set, and of what to label next: facts → blocks → HTML.

    facts, log ─► drawing, figures ─► head, results, training, classes, mistakes, study ─► blocks ─► render, templates
    what to label next ─► suggestions ─► blocks ─► render, templates
    a data set ─► dataset ─► blocks ─► render, templates

Code makes blocks, which are plain data (`blocks`); the templates of jinja2 in `templates/` make HTML of them. A page is
one file: pictures are data URIs, and nothing is asked for from anywhere. It has no script, and its policy allows none.

Floor 7: imports studies, serving, training and every floor below; the command line alone imports it.
"""

from __future__ import annotations

from pathlib import Path

from metapl.reporting import classes, facts, head, mistakes, render, results, training

__all__ = ["report"]


def report(run: Path, device: str = "auto", trust_code: bool = False, note: str = "") -> str:
    """The HTML page about a finished run; its networks see the test set once more.

    Args:
        run: a folder that `metapl train` wrote.
        device: cpu, cuda or auto.
        trust_code: whether code that the folder names may be imported, see `metapl.registry.trust`.
        note: what a reader must know of the run, such as that it is not finished.

    Raises:
        InputError: not a run, one that is incomplete or damaged, or one whose data cannot be read any more.
    """
    found = facts.gather(run, device, trust_code)
    sections = [
        results.results(found),
        *([training.training(found)] if found.log else []),
        results.calibration(found),
        classes.classes(found),
        mistakes.mistakes(found),
        classes.split(found),
        head.configuration(found),
    ]
    return render.page(head.head(found, note), sections)
