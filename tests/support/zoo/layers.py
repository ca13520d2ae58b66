"""Layers that torch has: linear, convolutional, embedding, recurrent, attention, pooling and shapes."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention
from torch.nn.attention import SDPBackend, sdpa_kernel

from zoo.entry import (
    CLASSES,
    NO_FORWARD,
    NO_TRANSFORM,
    SECOND,
    Entry,
    Fn,
    between,
    linear,
    numbers,
    weight,
    words,
)


def conv(layer, width, *, bend=torch.tanh):
    return lambda: Fn(lambda m, x: m.head(bend(m.conv(x)).flatten(1)), conv=layer(), head=linear(width))


def bag(**options):
    return lambda: Fn(lambda m, x: m.head(torch.tanh(m.bag(x))), bag=nn.EmbeddingBag(7, 4, **options), head=linear())


def embedding(**options):
    def forward(m, x):
        return m.head(torch.tanh(m.table(x)).mean(1))

    return lambda: Fn(forward, table=nn.Embedding(7, 4, **options), head=linear())


def recurrent(kind, directions=1, **options):
    def build():
        body = kind(3, 4, batch_first=True, bidirectional=directions == 2, **options)
        return Fn(lambda m, x: m.head(m.body(x)[0][:, -1]), body=body, head=linear(4 * directions))

    return build


def packed(m, x):
    lengths = torch.tensor([3, 2, 3, 1])
    rows = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    return m.head(m.body(rows)[1][-1])


def cell(kind):
    def forward(m, x):
        state = None
        for part in x.unbind(1):
            state = m.cell(part, state)
        return m.head(state[0] if isinstance(state, tuple) else state)

    return lambda: Fn(forward, cell=kind(3, 4), head=linear())


def attention(m, x):
    return m.head(m.mix(x, x, x, need_weights=False)[0].mean(1))


def dot_product(kernel=None):
    def forward(m, x):
        q, k, v = m.qkv(x).unflatten(-1, (3, 2, 2)).permute(2, 0, 3, 1, 4)
        if kernel is None:
            mixed = F.scaled_dot_product_attention(q, k, v)
        else:
            with sdpa_kernel(kernel):
                mixed = F.scaled_dot_product_attention(q, k, v)
        return m.head(mixed.transpose(1, 2).flatten(2).mean(1))

    return lambda: Fn(forward, qkv=nn.Linear(4, 12), head=linear())


def encoder(**options):
    def build():
        body = nn.TransformerEncoderLayer(4, 2, 5, dropout=0.0, batch_first=True, activation="gelu", **options)
        return Fn(lambda m, x: m.head(m.body(x).mean(1)), body=body, head=linear())

    return build


def decoder():
    body = nn.TransformerDecoderLayer(4, 2, 5, dropout=0.0, batch_first=True, activation="gelu")
    return Fn(lambda m, x: m.head(m.body(x, x.flip(1)).mean(1)), body=body, head=linear())


def picture(function, width):
    """A function of pictures `[batch, 2, 4, 4]` after a convolution."""
    return conv(lambda: nn.Conv2d(1, 2, 3, padding=1), width, bend=function)


def warped(m, x):
    grid = F.affine_grid(m.theta(x.flatten(1)).reshape(-1, 2, 3) * 0.3, list(x.shape), align_corners=False)
    return m.head(F.grid_sample(x, grid, align_corners=False).flatten(1))


def cosine(m, x):
    hidden = torch.tanh(m.first(x))
    return 3.0 * F.cosine_similarity(hidden[:, None], m.prototypes[None], dim=-1)


def fourier(m, x):
    spectrum = torch.fft.rfft(x) * torch.complex(m.real, m.imaginary)
    return m.head(torch.tanh(torch.fft.irfft(spectrum, n=4)))


def complex_weights(m, x):
    hidden = torch.complex(x, x.flip(-1)) @ m.weight
    return m.head((hidden * hidden.conj()).real)


def complex_parameter():
    return Fn(complex_weights, weight=nn.Parameter(torch.view_as_complex(torch.randn(4, 4, 2) * 0.5)), head=linear())


def adaptive(m, x):
    return m.head.log_prob(torch.tanh(m.first(x)))


def sets(m, x):
    """Deep sets: a sum over the members."""
    return m.head(torch.tanh(m.each(x)).sum(1))


SMOOTH = {
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "mish": nn.Mish,
    "softplus": nn.Softplus,
    "elu": nn.ELU,
    "celu": nn.CELU,
    "selu": nn.SELU,
    "logsigmoid": nn.LogSigmoid,
    "softsign": nn.Softsign,
    "relu": nn.ReLU,
    "leaky relu": nn.LeakyReLU,
    "hardswish": nn.Hardswish,
    "tanhshrink": nn.Tanhshrink,
    "softmax": lambda: nn.Softmax(-1),
    "log-softmax": lambda: nn.LogSoftmax(-1),
    "prelu": lambda: nn.PReLU(4),
}

PICTURE, SERIES, VOLUME = numbers(1, 4, 4), numbers(2, 4), numbers(1, 3, 3, 3)
SEQUENCE, TOKENS = numbers(3, 3), numbers(3, 4)

LINEAR = {
    "linear": Entry(linear, numbers(4)),
    "mlp": Entry(between(nn.Identity), numbers(4)),
    "bilinear": Entry(
        lambda: Fn(lambda m, x: m.head(torch.tanh(m.pair(x, x.flip(-1)))), pair=nn.Bilinear(4, 4, 3), head=linear(3)),
        numbers(4),
    ),
    "conv1d": Entry(conv(lambda: nn.Conv1d(2, 2, 3), 4), SERIES),
    "conv2d": Entry(conv(lambda: nn.Conv2d(1, 2, 3), 8), PICTURE),
    "conv2d, grouped": Entry(conv(lambda: nn.Conv2d(2, 2, 3, groups=2, padding=1), 8), numbers(2, 2, 2)),
    "conv3d": Entry(conv(lambda: nn.Conv3d(1, 2, 2), 16), VOLUME),
    "conv transpose 1d": Entry(conv(lambda: nn.ConvTranspose1d(2, 1, 2), 5), SERIES),
    "conv transpose 2d": Entry(conv(lambda: nn.ConvTranspose2d(1, 1, 2, stride=2), 16), numbers(1, 2, 2)),
    "conv transpose 3d": Entry(conv(lambda: nn.ConvTranspose3d(1, 1, 2), 27), numbers(1, 2, 2, 2)),
    "embedding": Entry(embedding(), words(3, 7)),
    "embedding, padded": Entry(embedding(padding_idx=0), words(3, 7)),
    "embedding, scaled by frequency": Entry(
        embedding(scale_grad_by_freq=True), words(3, 7), refused="scaled by frequency"
    ),
    "embedding, sparse": Entry(embedding(sparse=True), words(3, 7), refused="sparse"),
    "embedding, max_norm": Entry(embedding(max_norm=1.0), words(3, 7), refused="max_norm|writes"),
    "embedding bag": Entry(bag(mode="mean"), words(3, 7), either=SECOND),
    "embedding bag, max_norm": Entry(bag(mode="mean", max_norm=1.0), words(3, 7), refused="max_norm|writes"),
    "cosine head": Entry(lambda: Fn(cosine, first=nn.Linear(4, 4), prototypes=weight(CLASSES, 4)), numbers(4)),
    "adaptive softmax": Entry(
        lambda: Fn(adaptive, first=nn.Linear(4, 4), head=nn.AdaptiveLogSoftmaxWithLoss(4, CLASSES, [1], div_value=1.0)),
        numbers(4),
    ),
    "deep sets": Entry(lambda: Fn(sets, each=nn.Linear(3, 4), head=linear()), SEQUENCE),
    "complex parameters": Entry(complex_parameter, numbers(4)),
    "fourier layer": Entry(lambda: Fn(fourier, real=weight(3), imaginary=weight(3), head=linear()), numbers(4)),
    "glu": Entry(between(nn.GLU, width=2), numbers(4)),
}

RECURRENT = {
    "rnn": Entry(recurrent(nn.RNN), SEQUENCE),
    "gru": Entry(recurrent(nn.GRU), SEQUENCE),
    "lstm": Entry(recurrent(nn.LSTM), SEQUENCE),
    "lstm, two layers": Entry(recurrent(nn.LSTM, num_layers=2), SEQUENCE),
    "lstm, projected": Entry(
        lambda: Fn(
            lambda m, x: m.head(m.body(x)[0][:, -1]),
            body=nn.LSTM(3, 4, proj_size=2, batch_first=True),
            head=linear(2),
        ),
        SEQUENCE,
    ),
    "gru, both directions": Entry(recurrent(nn.GRU, directions=2), SEQUENCE),
    "gru, packed": Entry(
        lambda: Fn(packed, body=nn.GRU(3, 4, batch_first=True), head=linear()),
        SEQUENCE,
        coupled=True,
        either=NO_TRANSFORM,
    ),
    "rnn cell": Entry(cell(nn.RNNCell), SEQUENCE),
    "gru cell": Entry(cell(nn.GRUCell), SEQUENCE),
    "lstm cell": Entry(cell(nn.LSTMCell), SEQUENCE),
}

ATTENTION = {
    "multihead attention": Entry(
        lambda: Fn(attention, mix=nn.MultiheadAttention(4, 2, batch_first=True), head=linear()), TOKENS, either=SECOND
    ),
    "encoder layer": Entry(encoder(), TOKENS, either=SECOND),
    "encoder layer, norm first": Entry(encoder(norm_first=True), TOKENS, either=SECOND),
    "encoder layer, evaluated": Entry(encoder(), TOKENS, either=SECOND, evaluated=True),
    "decoder layer": Entry(decoder, TOKENS, either=SECOND),
    "dot product, default kernel": Entry(dot_product(), TOKENS, either=SECOND),
    "dot product, math kernel": Entry(dot_product(SDPBackend.MATH), TOKENS),
}

SHAPES = {
    "max pooling": Entry(picture(lambda h: F.max_pool2d(h, 2), 8), PICTURE),
    "average pooling": Entry(picture(lambda h: F.avg_pool2d(torch.tanh(h), 2), 8), PICTURE),
    "power pooling": Entry(picture(lambda h: F.lp_pool2d(torch.exp(h), 2.0, 2), 8), PICTURE),
    "adaptive max pooling": Entry(picture(lambda h: F.adaptive_max_pool2d(h, 2), 8), PICTURE),
    "adaptive average pooling": Entry(picture(lambda h: F.adaptive_avg_pool2d(torch.tanh(h), 2), 8), PICTURE),
    "fractional pooling": Entry(
        picture(lambda h: F.fractional_max_pool2d(h, 2, output_size=2), 8), PICTURE, random=True
    ),
    "max unpooling": Entry(
        picture(lambda h: F.max_unpool2d(*F.max_pool2d(torch.tanh(h), 2, return_indices=True), 2), 32), PICTURE
    ),
    "pixel shuffle": Entry(
        conv(lambda: nn.Conv2d(1, 4, 3, padding=1), 64, bend=lambda h: torch.tanh(F.pixel_shuffle(h, 2))), PICTURE
    ),
    "unfold and fold": Entry(picture(lambda h: F.fold(torch.tanh(F.unfold(h, 2)), 4, 2), 32), PICTURE),
    "interpolate, bilinear": Entry(
        picture(lambda h: F.interpolate(torch.tanh(h), scale_factor=0.5, mode="bilinear"), 8), PICTURE
    ),
    "interpolate, bicubic": Entry(picture(lambda h: F.interpolate(torch.tanh(h), size=2, mode="bicubic"), 8), PICTURE),
    "grid sample": Entry(
        lambda: Fn(warped, theta=nn.Linear(9, 6), head=linear(9)), numbers(1, 3, 3), either=NO_FORWARD
    ),
    "reflection padding": Entry(
        picture(lambda h: F.avg_pool2d(F.pad(torch.tanh(h), (1,) * 4, "reflect"), 3), 8), PICTURE
    ),
}

ACTIVATIONS = {name: Entry(between(layer), numbers(4), formula=True) for name, layer in SMOOTH.items()}


ENTRIES = {
    **LINEAR,
    **RECURRENT,
    **ATTENTION,
    **{name: entry._replace(formula=not entry.random) for name, entry in SHAPES.items()},
    **ACTIVATIONS,
}
