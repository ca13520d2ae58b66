"""Made-up runs of a small study, and what its page shows of them."""

import matplotlib
import numpy as np
from scipy import stats

from metapl.studies import specification

matplotlib.use("Agg")

EVIL = "<script>alert('1')</script> & $\\frac{1}$"
SEEDS = 5
TARGETS = (10, 40)
ENVIRONMENT = {"metapl": "0.1.0", "torch": "2.13.0", "gpu": None, "platform": "a <b>"}
# By arm, the top-1 of the student for each seed with 10 labels; with 40 it is 0.1 more.
TOP1 = {
    "none": (0.50, 0.52, 0.47, 0.55, 0.51),
    EVIL: (0.58, 0.55, 0.45, 0.61, 0.60),
    "supervised": (0.40, 0.44, 0.41, 0.39, 0.42),
}
TEACHER = 0.03  # less than the student, and as much again for every other seed
ARMS = {"none": {"grad": "none"}, EVIL: {}, "supervised": {"method": "supervised"}}


def a_study(arms=ARMS, seeds=SEEDS, over=TARGETS, **rest):
    tables = {"common": {"steps": 30, "labels": 7, "balanced": True}, "over": {"labels": list(over)}, "arms": arms}
    return specification.build({"seeds": seeds, **tables, **rest}, "here")


def judged(top1, seed=0):
    return {"top1": top1, "top5": 0.9, "nll": 2 - top1 + 0.01 * seed**2, "ece": 0.2 * top1 + 0.02 * seed}


def watched(step, top1):
    """What is seen of a pair on its way, the student finetuned at the end."""
    rows = {"teacher": judged(0.9), "student": judged(0.8), "ema": judged(top1)}
    quality = {"accuracy": top1 / 2, "confident": 0.7, "coverage": 0.1}
    return {"phase": "mpl", "step": step, "metrics": {}, "validation": rows, "pseudo_labels": quality}


def a_run(arm, labels, seed, top1):
    run = {"setting": {"labels": labels} if labels else {}, "arm": arm, "seed": seed, "finite": True}
    if arm == "supervised":
        logs = [
            {
                "phase": "supervised",
                "step": step,
                "metrics": {},
                "validation": {"model": judged(0.01), "ema": judged(step * top1)},
            }
            for step in (1, 2)
        ]
        return {**run, "validation": {}, "test": {"supervised": judged(top1, seed)}, "log": logs}
    # A baseline before and the finetuning after are no part of the curves.
    other = {"metrics": {}, "validation": {"model": judged(0.05), "ema": judged(0.05)}}
    logs = [
        {"phase": "uda", "step": 3, **other},
        *(watched(step, step * top1) for step in (1, 2)),
        {"phase": "finetune", "step": 4, **other},
    ]
    test = {"teacher": judged(teacher_of(top1, seed), seed), "student": judged(0.1), "ema": judged(top1, seed)}
    return {**run, "validation": {}, "test": test, "log": logs}


def teacher_of(top1, seed):
    return top1 - TEACHER * (1 + seed % 2)


def top1_of(arm, labels, seed):
    return TOP1[arm][seed] + (labels == 40) / 10


def runs_of(about):
    return [
        a_run(job.arm, job.condition.get("labels"), seed, top1_of(job.arm, job.condition.get("labels"), seed))
        for job in specification.jobs(about)
        for seed in [job.config.seed]
    ]


def half(values):
    """Of the 95 % interval of the mean, by scipy's own."""
    low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
    return (high - low) / 2


def signed(value):
    return f"{100 * value:+.2f}".replace("-", "−")


def compared(values, reference):
    gaps = np.subtract(values, reference)
    wins, losses = int((gaps > 0).sum()), int((gaps < 0).sum())
    return [
        f"{signed(gaps.mean())} ± {100 * half(gaps):.2f}",
        f"{wins} of {wins + losses}",
        f"{stats.binomtest(wins, wins + losses).pvalue:.2g}",
        f"{stats.ttest_rel(values, reference).pvalue:.2g}",
    ]


def picture(page, title):
    (found,) = [one for one in page.all("figure") if one.one("h3").text == title]
    return found


def ends(page, title):
    """The means that the description of a picture names."""
    return picture(page, title).one("img").attributes["alt"].partition("; means: ")[2]
