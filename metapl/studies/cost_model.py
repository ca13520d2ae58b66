"""What a step of Meta Pseudo Labels costs: operations, bytes and seconds as functions of its passes.

Everything here is arithmetic on numbers that `metapl.studies.passes` has counted on single passes, or that somebody
knows of a network from elsewhere. docs/scaling.md has the formulas in words, and what they were checked against.

Examples:
    >>> from metapl.studies.cost_model import operations
    >>> operations("exact", 1, 2, labelled=1, unlabelled=7) / operations("first-order", 1, 2, labelled=1, unlabelled=7)
    1.2028985507246377
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from metapl.studies.passes import Pass, Passes, Size

WIDTH = 4
"""Bytes of a number that goes from process to process, whatever the precision of the passes."""


class StepPlan(NamedTuple):
    """What one step costs one process."""

    flops: int
    memory: int
    """The most bytes held at once, with what is there before the step."""
    moved: int
    """Bytes read and written by operations that run one by one."""
    calls: int
    """Operations of torch."""
    sent: int
    """Bytes sent to other processes, and as many received."""


class Device(NamedTuple):
    """What a process runs on."""

    flops: float
    """Operations a second that products and convolutions reach: the peak times the share of it that is reached."""
    memory: float
    """Bytes."""
    bandwidth: float
    """Bytes a second between memory and processor."""
    call: float
    """Seconds from one operation to the next, however small, as torch calls them one by one."""
    link: float
    """Bytes a second that a process sends to others, while it receives as many."""


def operations(kind: str, forward: float, backward: float, *, labelled: int, unlabelled: int) -> float:
    """Operations of a step with one step of the student, by F and B of one example.

    (F + B)(2 l + 3 u), of which the teacher has l + 2 u examples, the student u and the exam l; and beyond that B u for
    tangents along the student's own pass, F u for a difference. Without feedback the exam has no way back.

    Raises:
        KeyError: an estimator that has no closed form, such as `exact:route=reverse`, whose way back through a
            gradient depends on the layers.
    """
    beyond = {
        "none": -backward * labelled,
        "first-order": 0.0,
        "exact:route=forward": backward * unlabelled,
        "exact": backward * unlabelled,
        "exact:route=difference": forward * unlabelled,
    }
    return (forward + backward) * (2 * labelled + 3 * unlabelled) + beyond[kind]


def phases(passes: Passes) -> dict[str, int]:
    """The most bytes that each part of a step holds, beyond what was there before the step.

    What the teacher's pass keeps waits until its way back. Meanwhile the student keeps its gradient, its update and its
    new state, and what the feedback needs of its pass; of all this the new state alone is left when the teacher goes
    back.
    """
    kept = passes.teacher.kept
    student = kept + passes.student.kept
    examined = student + passes.exam.kept
    through = examined + passes.update_back.kept
    ready = kept + passes.states
    return {
        "teacher": passes.teacher.peak,
        "student": kept + passes.student.peak,
        "exam": student + passes.exam.peak,
        "update": examined + passes.update_back.peak,
        "feedback": through + passes.feedback.peak,
        "teacher back": ready + passes.teacher_back.peak,
        "teacher's update": ready + passes.teacher_back.kept + passes.update.peak,
    }


def before(passes: Passes) -> int:
    """Bytes that are there before a step: teacher and student with their optimisers, and the student's average."""
    return 2 * passes.states + passes.params + passes.buffers


def sums(kind: str, passes: Passes, size: Size, classes: int) -> int:
    """Numbers that are added up over the processes in a step of all of them together.

    A gradient of the teacher, of the exam and of each step of the student, as many numbers as a network has parameters;
    and the logits of every pass. Several steps with exact feedback are replayed, K gradients more, and all but the
    first are differentiated in the parameters, K − 1 more. `size` is that of all processes together. Statistics of
    BatchNorm are each process's own.
    """
    parameters = passes.params // WIDTH
    logits = size.labelled + 2 * size.unlabelled + size.unlabelled + size.labelled
    gradients = 2 + size.unroll
    if kind == "none":
        gradients -= 1
    elif kind != "first-order":
        logits += size.unlabelled
        if size.unroll > 1:
            gradients += 2 * size.unroll - 1
        if size.unroll > 1 or passes.tangents:  # replayed, or passed anew
            logits += size.unlabelled
    return gradients * parameters + logits * classes


def ring(numbers: int, processes: int) -> int:
    """Bytes that each process sends to add up so many numbers around a ring."""
    return 2 * (processes - 1) * WIDTH * numbers // processes


def step(kind: str, passes: Passes, size: Size, classes: int, processes: int = 1) -> StepPlan:
    """What a step costs one of the processes.

    Args:
        kind: the estimator.
        passes: of one process, which has its part of the examples.
        size: of all processes together.
        classes: number of them.
        processes: number of them.
    """
    flops, moved, calls = (sum(getattr(one, what) for one in passes.all) for what in ("flops", "moved", "calls"))
    held = before(passes) + max(phases(passes).values())
    return StepPlan(flops, held, moved, calls, ring(sums(kind, passes, size, classes), processes))


def seconds(plan: StepPlan, device: Device) -> float:
    """A step on a device: whichever takes longest of calls, operations and memory; then the sums, which wait for it."""
    return max(parts(plan, device).values()) + plan.sent / device.link


def parts(plan: StepPlan, device: Device) -> dict[str, float]:
    """Seconds of a step's operations, of its bytes and of its calls, each as if there were nothing else."""
    return {
        "operations": plan.flops / device.flops,
        "bytes": plan.moved / device.bandwidth,
        "calls": plan.calls * device.call,
    }


class Line(NamedTuple):
    """Seconds of a pass over n examples: weights are read and their gradients written whatever n is."""

    fixed: float
    each: float

    def at(self, count: int) -> float:
        """Of so many examples."""
        return self.fixed + self.each * count


def line(small: tuple[int, float], large: tuple[int, float]) -> Line:
    """Through two points, of examples and seconds."""
    each = (large[1] - small[1]) / (large[0] - small[0])
    return Line(small[1] - each * small[0], each)


class Speed(NamedTuple):
    """What a machine has been seen to reach with a network."""

    forward: Line
    """A forward pass."""
    backward: Line
    """Its way back."""
    call: float
    """Seconds of an operation of next to no numbers, with the price of Python around it."""
    byte: float
    """Seconds of a byte that an operation between the passes reads or writes."""


def timed(kind: str, passes: Passes, size: Size, speed: Speed, plain: Callable[[int], tuple[Pass, Pass]]) -> float:
    """A step in seconds, where the network's own passes were timed on the machine.

    The passes of `operations` in seconds in place of operations. What the feedback takes goes at the rate of the
    student's way back, by its operations. Optimisers, average, norms and whatever else is between the passes go by
    calls and bytes, as far as there are more of them than the passes have; so do the sums of parameters that a
    difference takes beside its pass.

    Args:
        kind: the estimator.
        passes: of the step.
        size: of the step.
        speed: of the machine.
        plain: a forward pass over so many examples and its way back as they are counted, `metapl.studies.passes.plain`.
    """
    counts = (size.labelled + 2 * size.unlabelled, size.unlabelled, size.labelled)
    back = counts if kind != "none" else counts[:2]
    share = passes.feedback.flops / plain(size.unlabelled)[1].flops
    seconds = sum(map(speed.forward.at, counts)) + sum(map(speed.backward.at, back))
    seconds += share * speed.backward.at(size.unlabelled)
    known = [plain(count)[0] for count in counts] + [plain(count)[1] for count in back]
    parts = [one for one in passes.all if one is not passes.feedback]
    if kind == "exact:route=difference":
        parts.append(passes.feedback)
        known.append(plain(size.unlabelled)[0])
    between = {
        what: max(sum(getattr(one, what) for one in parts) - sum(getattr(one, what) for one in known), 0)
        for what in ("calls", "moved")
    }
    return seconds + speed.call * between["calls"] + speed.byte * between["moved"]
