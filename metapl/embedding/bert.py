"""The network of all-MiniLM-L6-v2: six layers of BERT, the mean over the words, length 1."""

from __future__ import annotations

from collections.abc import Mapping

from einops import rearrange
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own convention

HEADS = 12
"""Of the attention."""

EPSILON = 1e-12
"""Of the layer norms."""


def layers(tensors: Mapping[str, Tensor]) -> int:
    """How many layers the weights have."""
    return sum(name.endswith("attention.self.query.weight") for name in tensors)


def embed(tensors: Mapping[str, Tensor], tokens: Tensor, real: Tensor) -> Tensor:
    """Sentence embeddings `[batch, width]` of length 1.

    Each layer is x ← norm(x + attention(x)), x ← norm(x + W₂ gelu(W₁ x)), after the sum of the embeddings of token,
    position and first segment. Devlin et al., "BERT", NAACL 2019; Reimers and Gurevych, "Sentence-BERT", EMNLP 2019.

    Args:
        tensors: the weights, by the names that BERT's have in a file.
        tokens: `[batch, length]`, int64, the numbers of the word pieces.
        real: `[batch, length]`, bool, whether there is one.
    """

    def dense(x: Tensor, name: str) -> Tensor:
        return F.linear(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"])

    def norm(x: Tensor, name: str) -> Tensor:
        weight, bias = tensors[f"{name}.LayerNorm.weight"], tensors[f"{name}.LayerNorm.bias"]
        return F.layer_norm(x, weight.shape, weight, bias, EPSILON)

    def heads(x: Tensor) -> Tensor:
        return rearrange(x, "batch length (heads width) -> batch heads length width", heads=HEADS)

    table = {name: tensors[f"embeddings.{name}_embeddings.weight"] for name in ("word", "position", "token_type")}
    x = table["word"][tokens] + table["position"][: tokens.shape[1]] + table["token_type"][0]
    x = norm(x, "embeddings")
    for number in range(layers(tensors)):
        layer = f"encoder.layer.{number}"
        q, k, v = (heads(dense(x, f"{layer}.attention.self.{name}")) for name in ("query", "key", "value"))
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=real[:, None, None, :])
        seen = rearrange(seen, "batch heads length width -> batch length (heads width)")
        x = norm(x + dense(seen, f"{layer}.attention.output.dense"), f"{layer}.attention.output")
        grown = F.gelu(dense(x, f"{layer}.intermediate.dense"))
        x = norm(x + dense(grown, f"{layer}.output.dense"), f"{layer}.output")
    counted = real[..., None].to(x.dtype)
    return F.normalize((x * counted).sum(1) / counted.sum(1), dim=-1)
