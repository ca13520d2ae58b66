"""Several gradient transformations, one after another."""

from __future__ import annotations

from metapl.core.types import Optimizer, Params, PyTree, Rule


def chain(*links: Optimizer) -> Optimizer:
    """Feed the output of each link to the next; the last is the optimiser itself. The state is a tuple, one a link."""

    def init(params: Params) -> tuple[PyTree, ...]:
        return tuple(link.init(params) for link in links)

    def update(grads: Params, state: tuple[PyTree, ...], params: Params) -> tuple[Params, tuple[PyTree, ...]]:
        states = []
        for link, link_state in zip(links, state, strict=True):
            grads, after = link.update(grads, link_state, params)
            states.append(after)
        return grads, tuple(states)

    return Optimizer(init, update, Rule("chain", {"links": links}))
