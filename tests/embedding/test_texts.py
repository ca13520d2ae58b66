"""Texts as word pieces, and MiniLM's network against torch's own transformer."""

import json
import zipfile

import pytest
import torch
from safetensors.torch import save, save_file
from torch import nn

from metapl.data.sources.texts import texts
from metapl.embedding import Given, bert, build
from metapl.embedding.wordpiece import pieces, words
from metapl.registry.errors import InputError

WIDTH, LAYERS, WORDS = 24, 2, ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "word", "##s", "play", "##ing", "!"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Hello, World!", ["hello", ",", "world", "!"]),
        ("Héllo naïve İ", ["hello", "naive", "i"]),
        ("it's 5€ – ok_", ["it", "'", "s", "5€", "–", "ok", "_"]),
        ("中文x", ["中", "文", "x"]),
        ("a\tb\nc\x00d\u200be", ["a", "b", "cde"]),
        ("nb\u00a0sp\u2028line", ["nb", "sp", "line"]),
        ("  ", []),
    ],
)
def test_words(text, found):
    assert words(text) == found


def test_the_longest_piece_comes_first():
    known = {"un", "##aff", "##able", "##a", "una", "[UNK]"}
    assert pieces("unaffable", known - {"una"}, "[UNK]") == ["un", "##aff", "##able"]
    assert pieces("unaffable", known, "[UNK]") == ["[UNK]"]  # una, and then nothing fits
    assert pieces("x", known, "[UNK]") == ["[UNK]"]
    assert pieces("un" + "a" * 99, known - {"una"}, "[UNK]") == ["[UNK]"]
    assert len(pieces("un" + "a" * 98, known - {"una"}, "[UNK]")) == 99


def reference():
    """A transformer of torch, and its weights by the names that BERT's have."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(WIDTH, 12, 4 * WIDTH, 0.0, "gelu", 1e-12, batch_first=True)
    whole = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False).eval()
    tables = {"word": len(WORDS), "position": 512, "token_type": 2}
    tensors = {f"embeddings.{name}_embeddings.weight": torch.randn(rows, WIDTH) for name, rows in tables.items()}
    tensors |= {"embeddings.LayerNorm.weight": torch.rand(WIDTH), "embeddings.LayerNorm.bias": torch.randn(WIDTH)}
    for number, one in enumerate(whole.layers):
        for parameter in one.parameters():
            nn.init.normal_(parameter, std=0.3)
        place = f"encoder.layer.{number}"
        parts = zip(one.self_attn.in_proj_weight.chunk(3), one.self_attn.in_proj_bias.chunk(3), strict=True)
        named = dict(zip(("query", "key", "value"), parts, strict=True))
        dense = {f"attention.self.{name}": pair for name, pair in named.items()}
        for name, module in {
            "attention.output.dense": one.self_attn.out_proj,
            "attention.output.LayerNorm": one.norm1,
            "intermediate.dense": one.linear1,
            "output.dense": one.linear2,
            "output.LayerNorm": one.norm2,
        }.items():
            dense[name] = (module.weight, module.bias)
        for name, (weight, bias) in dense.items():
            tensors |= {f"{place}.{name}.weight": weight, f"{place}.{name}.bias": bias}
    return whole, {name: value.detach().clone() for name, value in tensors.items()}


def truth(whole, tensors, tokens, real):
    x = tensors["embeddings.word_embeddings.weight"][tokens]
    x = x + tensors["embeddings.position_embeddings.weight"][: tokens.shape[1]]
    x = x + tensors["embeddings.token_type_embeddings.weight"][0]
    norm = (tensors["embeddings.LayerNorm.weight"], tensors["embeddings.LayerNorm.bias"])
    x = whole(torch.nn.functional.layer_norm(x, (WIDTH,), *norm, 1e-12), src_key_padding_mask=~real)
    means = torch.stack([one[here].mean(0) for one, here in zip(x, real, strict=True)])
    return means / means.norm(dim=1, keepdim=True)


def test_the_network_is_a_transformer():
    whole, tensors = reference()
    tokens = torch.tensor([[2, 4, 5, 3, 0, 0], [2, 5, 6, 7, 8, 3], [2, 3, 0, 0, 0, 0]])
    real = torch.tensor([[1, 1, 1, 1, 0, 0], [1] * 6, [1, 1, 0, 0, 0, 0]]).bool()
    assert bert.layers(tensors) == LAYERS
    with torch.no_grad():
        found = bert.embed(tensors, tokens, real)
        torch.testing.assert_close(found, truth(whole, tensors, tokens, real), rtol=1e-4, atol=1e-6)


def tokenizer():
    return json.dumps({"model": {"vocab": {word: number for number, word in enumerate(WORDS)}}})


@pytest.fixture
def archive(tmp_path):
    tensors = reference()[1]
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as made:
        made.writestr("model.safetensors", save(tensors))
        made.writestr("tokenizer.json", tokenizer())
    return tmp_path / "model.zip"


def test_texts_become_vectors(archive, tmp_path):
    whole, tensors = reference()
    encoder = build("minilm:length=6", Given(None, archive))
    assert encoder.features == WIDTH
    rows = {"A words": [2, 4, 5, 6, 3], "playing x! a a a": [2, 7, 8, 1, 9, 3], "": [2, 3]}
    with torch.no_grad():
        for text, tokens in rows.items():
            row = torch.tensor([tokens])
            expected = truth(whole, tensors, row, torch.ones_like(row).bool())
            torch.testing.assert_close(encoder.encode([text]), expected, rtol=1e-4, atol=1e-6)
    together = encoder.encode(list(rows))
    apart = torch.cat([encoder.encode([text]) for text in rows])
    torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-6)
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "tokenizer.json").write_text(tokenizer())
    assert build("minilm:length=6", Given(None, tmp_path)).digest == encoder.digest
    assert build("minilm:length=7", Given(None, archive)).digest != encoder.digest


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tokenizer.json": "{}"}, "not those of MiniLM"),
        ({"tokenizer.json": json.dumps({"model": {"vocab": {"[CLS]": 99}}})}, "do not go together"),
        ({"tokenizer.json": json.dumps({"model": {"vocab": {"[CLS]": 1}}})}, "no \\[SEP\\]"),
        ({"tokenizer.json": "["}, "not those of MiniLM"),
        ({"model.safetensors": b"no"}, "not those of MiniLM"),
        ({"model.safetensors": save({"x": torch.zeros(1)})}, "not those of MiniLM"),
    ],
)
def test_other_weights_are_refused_in_one_line(archive, tmp_path, change, words):
    with zipfile.ZipFile(archive) as whole:
        content = {name: whole.read(name) for name in whole.namelist()} | change
    for name, data in content.items():
        (tmp_path / name).write_bytes(data if isinstance(data, bytes) else data.encode())
    with pytest.raises(InputError, match=words) as raised:
        build("minilm", Given(None, tmp_path))
    assert "\n" not in str(raised.value)


def test_lengths_outside_the_network_are_refused(archive):
    with pytest.raises(InputError, match="length=513 must be from 3 to 512"):
        build("minilm:length=513", Given(None, archive))


# ---------------------------------------------------------------- the column of a table

TABLE = 'text,kind,label\n"Good, very",x,1\nbad,y,0\n,x,1\nfine,x,\n'


def test_a_column_of_texts(tmp_path):
    (tmp_path / "own.csv").write_text(TABLE)
    (tmp_path / "test.csv").write_text("label,text\n1,new\n,unknown\n0,other\n")
    found = texts(tmp_path / "own.csv", "text", test_file="test.csv")
    assert list(found.x) == ["Good, very", "bad", "", "fine"]
    assert (found.y.tolist(), found.classes) == ([1, 0, 1, -1], ("0", "1"))
    assert (list(found.x_test), found.y_test.tolist()) == (["new", "other"], [1, 0])
    alone = texts(tmp_path / "own.csv", "text", label="kind")
    assert (alone.classes, len(alone.x_test)) == (("x", "y"), 0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"column": "word"}, "unknown text column .* 'word'"),
        ({"column": "label", "label": "label"}, "label=label is also"),
        ({"column": "text", "label": "lable"}, "unknown label column"),
        ({"column": "text", "test_file": "empty.csv"}, "nothing can be tested"),
    ],
)
def test_columns_that_are_not_there(tmp_path, options, words):
    (tmp_path / "own.csv").write_text(TABLE)
    (tmp_path / "empty.csv").write_text("text,label\nx,\n")
    with pytest.raises(InputError, match=words):
        texts(tmp_path / "own.csv", **options)
