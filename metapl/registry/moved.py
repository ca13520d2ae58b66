"""Where the public names of version 0.1.0 went.

An import of an old place ends in one line that names the new one. `docs/what_moved.md` shows the same tables. A name
that is in neither of them is where it was, or has kept its name in the new place of its module.

Examples:
    >>> import metapl.tree
    Traceback (most recent call last):
    ImportError: metapl.tree moved to metapl.core.tree in 0.2.0, see docs/what_moved.md
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import ModuleType

MODULES: dict[str, str] = {
    "metapl.ablation": "metapl.studies.tables",
    "metapl.accuracy": "metapl.evaluation.quality",
    "metapl.admission": "metapl.nn.admission",
    "metapl.baselines": "metapl.methods.baselines",
    "metapl.budget": "metapl.studies.search_space",
    "metapl.card": "metapl.serving.model_card",
    "metapl.checkpoint": "metapl.training.checkpoint",
    "metapl.checksum": "metapl.files.checksum",
    "metapl.closures": "metapl.core.closures",
    "metapl.compare": "metapl.studies.comparison",
    "metapl.config": "metapl.training.config",
    "metapl.data.arrays": "metapl.data.formats.arrays",
    "metapl.data.crops": "metapl.data.augment.crops",
    "metapl.data.csv_file": "metapl.data.formats.csv_file",
    "metapl.data.decode": "metapl.data.formats.decode",
    "metapl.data.fetch": "metapl.data.sources.fetch",
    "metapl.data.files": "metapl.data.formats.files",
    "metapl.data.image_views": "metapl.data.augment.image_views",
    "metapl.data.images": "metapl.data.formats.images",
    "metapl.data.limits": "metapl.data.formats.limits",
    "metapl.data.npy": "metapl.data.formats.npy",
    "metapl.data.operations": "metapl.data.augment.operations",
    "metapl.data.randaugment": "metapl.data.augment.randaugment",
    "metapl.data.safe_pickle": "metapl.data.formats.safe_pickle",
    "metapl.data.shards": "metapl.data.formats.shards",
    "metapl.data.tables": "metapl.data.formats.tables",
    "metapl.data.tabular": "metapl.data.augment.tabular",
    "metapl.data.views": "metapl.data.augment.presets",
    "metapl.dropout": "metapl.nn.dropout",
    "metapl.errors": "metapl.registry.errors",
    "metapl.escape": "metapl.files.escape",
    "metapl.experiment": "metapl.training.phases",
    "metapl.export": "metapl.serving.export",
    "metapl.exported": "metapl.serving.exported",
    "metapl.fitting": "metapl.training.fitting",
    "metapl.functional": "metapl.nn.functional",
    "metapl.gradients": "metapl.core.autodiff",
    "metapl.inner": "metapl.core.inside",
    "metapl.labels": "metapl.core.targets",
    "metapl.loggers": "metapl.training.loggers",
    "metapl.losses": "metapl.core.losses",
    "metapl.measure": "metapl.evaluation.cost",
    "metapl.metrics": "metapl.evaluation.metrics",
    "metapl.microbatch": "metapl.nn.microbatch",
    "metapl.mpl": "metapl.methods.mpl",
    "metapl.paired": "metapl.studies.paired",
    "metapl.plots": "metapl.reporting.plots",
    "metapl.plugins": "metapl.registry.entry_points",
    "metapl.population": "metapl.training.population",
    "metapl.predict": "metapl.serving.predict",
    "metapl.reduced": "metapl.methods.reduced",
    "metapl.report": "metapl.reporting",
    "metapl.report.classes": "metapl.reporting.classes",
    "metapl.report.facts": "metapl.reporting.facts",
    "metapl.report.figures": "metapl.reporting.figures",
    "metapl.report.head": "metapl.reporting.head",
    "metapl.report.log": "metapl.reporting.log",
    "metapl.report.mistakes": "metapl.reporting.mistakes",
    "metapl.report.names": "metapl.reporting.names",
    "metapl.report.page": "metapl.reporting.page",
    "metapl.report.results": "metapl.reporting.results",
    "metapl.report.study": "metapl.reporting.study",
    "metapl.report.study_figures": "metapl.reporting.study_figures",
    "metapl.report.style": "metapl.reporting.style",
    "metapl.report.svg": "metapl.reporting.svg",
    "metapl.report.training": "metapl.reporting.training",
    "metapl.rng": "metapl.core.rng",
    "metapl.run_files": "metapl.training.run_files",
    "metapl.run_folder": "metapl.training.run_folder",
    "metapl.schema": "metapl.files.schema",
    "metapl.setting": "metapl.training.experiment",
    "metapl.sizes": "metapl.methods.feedback_scale",
    "metapl.skeleton": "metapl.nn.skeleton",
    "metapl.spec": "metapl.registry.notation",
    "metapl.stage": "metapl.studies.snapshot",
    "metapl.storage": "metapl.files.storage",
    "metapl.study": "metapl.studies.specification",
    "metapl.study_plot": "metapl.reporting.study_plot",
    "metapl.sweep": "metapl.studies.execution",
    "metapl.train": "metapl.training.loop",
    "metapl.tree": "metapl.core.tree",
    "metapl.trust": "metapl.registry.trust",
    "metapl.tune": "metapl.studies.search",
    "metapl.tuned": "metapl.studies.search_result",
    "metapl.types": "metapl.core.types",
    "metapl.unroll": "metapl.core.unrolling",
    "metapl.weight_norm": "metapl.nn.weight_norm",
}
"""Modules: the old name, the new one."""

NAMES: dict[str, str] = {
    "metapl.data.augment.Augment": "metapl.data.augment.base.Augment",
    "metapl.data.augment.View": "metapl.data.augment.base.View",
    "metapl.data.augment.compose": "metapl.data.augment.base.compose",
    "metapl.data.augment.erase": "metapl.data.augment.base.erase",
    "metapl.data.augment.identity": "metapl.data.augment.base.identity",
    "metapl.data.augment.noise": "metapl.data.augment.base.noise",
    "metapl.data.augment.shift": "metapl.data.augment.base.shift",
    "metapl.labels.LABELS": "metapl.core.targets.TARGETS",
    "metapl.mpl.Lecture": "metapl.methods.mpl.TeacherPass",
    "metapl.mpl.Network": "metapl.core.types.Variables",
    "metapl.mpl.Player": "metapl.methods.mpl.Trainable",
    "metapl.mpl.See": "metapl.methods.mpl.TeacherInputs",
    "metapl.mpl.lectures": "metapl.methods.mpl.teacher_passes",
    "metapl.mpl.new_learner": "metapl.methods.mpl.new_train_state",
    "metapl.setting.Setting": "metapl.training.experiment.Experiment",
    "metapl.sizes.Told": "metapl.methods.feedback_scale.Statistics",
    "metapl.study.settings": "metapl.studies.specification.conditions",
    "metapl.types.Assignment": "metapl.core.types.Instance",
    "metapl.types.Feedback": "metapl.core.types.MetaGradient",
    "metapl.types.Labels": "metapl.core.types.TargetTransform",
    "metapl.types.Learner": "metapl.core.types.TrainState",
}
"""What has another name in its new place, or went elsewhere than the module that it was in."""


GONE: dict[str, str] = {}
"""What has no new place, and why; modules and names."""

SHOWN = 4
"""Names that have left their module, or are called otherwise in it, that one line shows."""


def line(old: str) -> str:
    """What an import of the old place says."""
    if old in GONE:
        return f"{old} is gone in 0.2.0: {GONE[old]}, see docs/what_moved.md"
    apart = [_apart(name, old) for name in NAMES if name.rpartition(".")[0] == old]
    there = f" ({', '.join([*apart[:SHOWN], *(['…'] if apart[SHOWN:] else [])])})" if apart else ""
    return f"{old} moved to {(MODULES | NAMES)[old]} in 0.2.0{there}, see docs/what_moved.md"


def _apart(name: str, module: str) -> str:
    """Where a name went that is not found under the same name in the new place of its module."""
    home, _, new = NAMES[name].rpartition(".")
    old = name.rpartition(".")[2]
    if home != MODULES.get(module, module):
        return f"{old} is {NAMES[name]}"
    return f"{old} is {new}"


class _Finder:
    """The last on `sys.meta_path`: finds nothing, and says of an old place where its content went."""

    @staticmethod
    def find_spec(fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:  # noqa: ARG004
        if fullname in MODULES or fullname in NAMES or fullname in GONE:
            raise ImportError(line(fullname), name=fullname)


def install() -> None:
    """From now on an import of an old place raises an `ImportError` with its line; done by `import metapl`."""
    if _Finder not in sys.meta_path:
        sys.meta_path.append(_Finder)
