"""The configuration of a run: every flag of `metapl train`, and nothing else.

The order of precedence is flags, then the file of `--config`, then the preset, then the defaults here. The defaults are
the best of a small search on the validation part of digits; `docs/results/defaults.md` has the search.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import tomli_w

from metapl.files import storage
from metapl.methods import METHODS
from metapl.registry import notation, trust
from metapl.registry.errors import InputError, unknown
from metapl.training.options import option as _option
from metapl.training.options import require_within

ON_NONFINITE = ("stop", "skip", "rollback")
"""The values of `on_nonfinite`; `metapl.training.nonfinite` has what they do."""


@dataclass(frozen=True)
class TrainConfig:
    """What `metapl train` needs to know: a flag on the command line and a key in a TOML file for each field."""

    data: str = _option(
        "digits",
        "Data source NAME:key=value,…, or the path of your own data: a folder of images in folders of their classes or "
        "with a CSV file of labels, a table, arrays. `metapl data check PATH` says what it is taken for.",
    )
    data_dir: str = _option("", "Where the files of the data source are; else METAPL_DATA and /usr/share/datasets.")
    unlabelled: str = _option("", "More unlabelled examples: a folder, shards, an array or a table like the data.")
    embed: str = _option(
        "auto",
        "Pretrained network whose features images become first: none or efficientnet-lite0; auto takes it for "
        "photographs if it is installed.",
    )
    augment: str = _option("auto", "Views NAME:key=value,…; auto takes those that fit the data.")
    labels: int = _option(
        0, "Labelled examples in all; 0: one a class, or all there are where some examples have none.", least=0
    )
    validation: int = _option(
        -1, "Labelled examples held out for choosing hyperparameters; -1: a fifth, at most 200.", least=-1
    )
    balanced: bool = _option(True, "Equally many labels of each class, or in the proportions of the data.")
    more_labels: str = _option("", "CSV files with names of unlabelled examples and their labels; PATH:PATH.")
    split: str = _option("", "The split.json of another run, to use the same split.")
    labelled_in_unlabelled: bool = _option(True, "Whether the labelled examples are in the unlabelled set too.")
    model: str = _option("auto", "The student's network, and the teacher's unless it has its own.")
    teacher_model: str = _option("", "The teacher's network; empty for the student's.")
    freeze: str = _option("none", "Parameters that stay as they are: none or PATTERN|PATTERN; after ! all others.")
    teacher_freeze: str = _option("", "Those of the teacher; empty for the student's.")
    adapt: str = _option("none", "What is trained in place of frozen weights: none or lora, NAME:key=value,….")
    method: str = _option("auto", f"auto, which compares some on the labels, or {', '.join(METHODS)}.")
    calibrator: str = _option("residual", "With the method reduced: the network that corrects the fixed teacher.")
    baselines: bool = _option(
        True, "Whether the classical panel, and for `mpl` three other methods, come first, for the table."
    )
    grad: str = _option("auto", "Estimator of the feedback, which makes the method mpl; auto: exact with mpl.")
    pseudo_labels: str = _option("auto", "soft, sampled or argmax; auto takes the first that the estimator can use.")
    exam: str = _option("weak", "What the student is tested on: weak, strong or apart, of the labelled examples.")
    feedback_weight: float = _option(1.0, "Factor of the feedback in the teacher's gradient.")
    feedback_size: str = _option("cosine:power=0.5", "Rule for its length, NAME:key=value,…; times the weight.")
    unroll: int = _option(1, "Steps of the student, on a batch each, for one of the teacher.", least=1)
    steps: int = _option(1500, "Training steps of each method; for mpl the teacher's.", least=1)
    batch: int = _option(128, "Unlabelled examples a step.", least=1)
    microbatch: int = _option(0, "Most examples in memory at a time, for the same update; 0: the whole batch.", least=0)
    precision: str = _option(
        "float32", "What training passes are computed in: float32, or bf16 with all else in float32."
    )
    compile: bool = _option(False, "Whether each phase's step is compiled, as one graph, when it is first taken.")
    batch_norm_batch: int = _option(0, "Examples that share BatchNorm statistics; 0: the whole batch.", least=0)
    batch_norm_groups: int = _option(0, "Groups of a batch with statistics of their own, in its place.", least=0)
    labelled_batch: int = _option(64, "Labelled examples a step; all of them if there are fewer.", least=1)
    optimizer: str = _option("sgd:momentum=0.9,nesterov=true,weight_decay=0.0005", "Update rule of every network.")
    lr: float = _option(0.1, "The student's learning rate, and the baselines'.", above=0)
    teacher_lr: float = _option(0.1, "The teacher's learning rate.", above=0)
    schedule: str = _option("cosine", "How the learning rates change: cosine, down to zero, or constant.")
    warmup: int = _option(0, "Steps over which the learning rates grow linearly.", least=0)
    student_wait: int = _option(0, "Steps before the student starts to move.", least=0)
    clip: float = _option(1.0, "Largest norm of a gradient; 0 for no clipping.", least=0)
    uda_weight: float = _option(1.0, "Factor of the teacher's consistency loss; 0 for none.", least=0)
    uda_temperature: float = _option(0.7, "Temperature that sharpens the consistency target.", above=0)
    uda_threshold: float = _option(0.6, "Least confidence of a consistency target.", least=0, most=1)
    guide: str = _option(
        "auto", "A classical method whose answers its targets are multiplied by, such as consensus; or none."
    )
    guide_weight: float = _option(1.0, "The exponent of these answers.", least=0)
    alignment: str = _option(
        "auto", "How its targets are kept from collapsing: none, uniform, marginal, adamatch or fair, NAME:key=value,…."
    )
    threshold: str = _option(
        "fixed", "Which targets count: fixed, relative, flexible, adaptive, gaussian or none, NAME:key=value,…."
    )
    consistency_target: str = _option("sharpened", "What a target is: sharpened, soft or hard.")
    mixing: str = _option("none", "Strong views mixed with each other: none, mixup or cutmix, NAME:key=value,….")
    prior: str = _option(
        "estimated", "Probability of each class, for the alignment: estimated, uniform, labelled or a file."
    )
    uda_ramp: int = _option(0, "Steps over which the consistency loss grows linearly.", least=0)
    smoothing: float = _option(0.0, "Label smoothing, except in the exam.", least=0, most=1)
    class_weights: str = _option("none", "Weights of the classes in the supervised loss: none or effective:beta=….")
    logit_adjustment: float = _option(0.0, "Factor of the log class shares in the supervised loss.", least=0)
    ema: float = _option(0.99, "Decay of the moving average of the weights.", least=0, most=1)
    finetune_steps: int = _option(200, "Steps on labelled data at the end, from the averaged student.", least=0)
    finetune_lr: float = _option(0.001, "Their constant learning rate.", above=0)
    finetune_optimizer: str = _option("sgd:momentum=0.9", "Their update rule, without clipping.")
    finetune_batch: int = _option(0, "Their batch; 0: as labelled_batch.", least=0)
    from_: str = _option("", "The folder of a run whose weights, split and configuration this one goes on from.")
    report_every: int = _option(50, "Steps between lines in the log, each with an evaluation.", least=1)
    on_nonfinite: str = _option(
        "stop", "At a step with numbers that are not finite: stop, skip it, or rollback to a state before it."
    )
    log: str = _option("", "Where else to log: tensorboard, trackio or both, split by a comma.")
    seed: int = _option(0, "Determines the split, the initial weights, the batches and all draws.")
    device: str = _option("auto", "cpu, cuda or auto.")

    def __post_init__(self) -> None:
        """Check the limits of every field, and the fields that depend on each other."""
        require_within(self)
        if self.method not in (known := ("auto", *METHODS)):
            raise unknown("method", self.method, known)
        if self.on_nonfinite not in ON_NONFINITE:
            raise unknown("on_nonfinite", self.on_nonfinite, ON_NONFINITE)
        if self.warmup + self.student_wait >= self.steps:
            raise InputError(
                f"warmup = {self.warmup} and student_wait = {self.student_wait} leave nothing of steps = {self.steps}: "
                "lower them or take more steps",
                *("warmup", "student_wait", "steps"),
            )


KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
"""What a value of each type is called in messages."""

PRESETS = Path(__file__).parent / "presets"
"""A TOML file a preset."""

VARYING = (
    "lr",
    "teacher_lr",
    "finetune_lr",
    "feedback_weight",
    "uda_weight",
    "uda_temperature",
    "uda_threshold",
    "guide_weight",
    "smoothing",
    "ema",
)
"""The numbers that may differ between the members of a population, beside the seed."""


def flag(name: str) -> str:
    """A field's flag on the command line; a name that Python keeps for itself has an underscore at its end."""
    return "--" + name.rstrip("_").replace("_", "-")


def presets() -> list[str]:
    """The names for `--preset`."""
    return sorted(path.stem for path in PRESETS.glob("*.toml"))


def preset_values(name: str) -> dict[str, Any]:
    """The fields that a preset sets.

    Raises:
        InputError: an unknown preset.
    """
    if name not in presets():
        raise unknown("preset", name, presets())
    return _load(PRESETS / f"{name}.toml")


def resolve(
    given: Mapping[str, Any], file: Path | None = None, preset: str = "", trust_code: bool = False
) -> TrainConfig:
    """The configuration from a preset, a TOML file and what was given on the command line, the later ones first.

    Raises:
        InputError: an unknown preset, a file that cannot be read, an unknown key in it, a value of the wrong type
            or range, or code that the file names and that is not trusted, see `metapl.registry.trust`.
    """
    known = preset_values(preset) if preset else {}
    read = _load(file) if file else {}
    trust.require({key: value for key, value in read.items() if key not in given}, str(file), trust_code)
    return TrainConfig(**{**known, **read, **given})


def _load(file: Path) -> dict[str, Any]:
    return {key: checked(key, value, str(file)) for key, value in read_toml(file, f"--config {file}").items()}


def read_toml(file: Path, called: str) -> dict[str, Any]:
    """What a TOML file holds.

    Raises:
        InputError: it cannot be read; `called` says what the file is.
    """
    try:
        return storage.read_toml(file)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{called}: not valid TOML ({error})") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{called}: cannot be read ({error}): give a TOML file") from None


def checked(key: str, value: Any, where: str) -> Any:
    """The value of a field, whole numbers made floating where the field is.

    Raises:
        InputError: an unknown field, or a value of another type; `where` says where it stands.
    """
    defaults = {field.name: field.default for field in fields(TrainConfig)}
    if key not in defaults:
        raise unknown(f"key in {where}", key, defaults)
    wanted = type(defaults[key])
    if type(value) is int and not -(2**63) <= value < 2**64:
        raise InputError(f"{where}: {key} must be a number of at most 64 bits")
    if wanted is float and type(value) is int:
        return float(value)
    if type(value) is not wanted:
        example = tomli_w.dumps({key: defaults[key]}).strip()
        raise InputError(f"{where}: {key} = {value!r} must be {KINDS[wanted]}, as in {example}")
    return value


def read_flag(key: str, text: str, where: str) -> Any:
    """The value of a field as it is typed on the command line.

    Raises:
        InputError: an unknown field, or a text that is no value of it; `where` says where it stands.
    """
    defaults = {field.name: field.default for field in fields(TrainConfig)}
    if key not in defaults:
        raise unknown(f"key in {where}", key, defaults)
    return notation.convert(text, defaults[key], key)


def dump(config: TrainConfig) -> str:
    """The configuration as TOML; `resolve` reads it back."""
    return tomli_w.dumps(asdict(config))
