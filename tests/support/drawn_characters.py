"""A tiny folder of the layout of Omniglot, with drawings of noise."""

import numpy as np


def write(folder, *, alphabets=2, characters=4, drawings=6):
    """A few characters, each on a patch of its own, and splits that hold all of them upright and turned by 90°."""
    rng = np.random.default_rng(0)
    names = [(f"A{i}", f"character{j:02}") for i in range(alphabets) for j in range(1, characters + 1)]
    ink = rng.random((len(names) * drawings, 105, 105)) < 0.1
    for row in range(len(ink)):
        which = row // drawings
        ink[row, 12 * which : 12 * which + 20, 30:60] = True
    (folder / "splits").mkdir(parents=True)
    columns = [np.array([name[part] for name in names for _ in range(drawings)]) for part in (0, 1)]
    packed = np.packbits(ink.reshape(len(ink), -1), axis=1)
    np.savez(folder / "omniglot_packed.npz", ink=packed, alphabet=columns[0], character=columns[1])
    lines = [f"{alphabet}/{character}/rot{turn}" for alphabet, character in names for turn in ("000", "090")]
    for split in ("trainval", "test"):
        (folder / "splits" / f"vinyals_{split}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return ink
