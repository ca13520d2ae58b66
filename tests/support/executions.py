"""A tiny study, its jobs, and what is left of it in a folder."""

from metapl.studies import execution, specification

TINY = {
    "method": "mpl",
    "guide": "none",
    "data": "moons:points=60",
    "model": "mlp:width=3,depth=1",
    "batch": 8,
    "labels": 6,
    "validation": 10,
    "steps": 4,
    "finetune_steps": 2,
    "report_every": 2,
    "device": "cpu",
}
ARMS = {"exact": {}, "none": {"grad": "none"}, "slow": {"lr": 0.02}}


def jobs_of(arms=ARMS, seeds=2, **common):
    return specification.jobs(specification.build({"common": {**TINY, **common}, "arms": arms, "seeds": seeds}, "here"))


def run(jobs, folder, together=3, tick=lambda progress: None):
    """The lines that were said."""
    said = []
    execution.run(jobs, folder, together, said.append, tick)
    return said


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


LINES = [("mpl", 2), ("mpl", 4), ("finetune", 2)]
