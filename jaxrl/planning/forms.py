"""From a dense process to successor lists and back."""

import numpy as np

from jaxrl import memory
from jaxrl.envs.api import TabularMDP
from jaxrl.planning import inputs
from jaxrl.planning.model import SparseMDP


def sparse(mdp: TabularMDP) -> SparseMDP:
    """A concrete process by successor lists [S, K], K the most successors of any state.

    Raises ValueError for what is no process.
    """
    inputs.process(mdp)
    P = np.asarray(mdp.P)
    reached = (P != 0).any(1)
    successors = np.argsort(~reached, axis=1, kind="stable")[:, : reached.sum(1).max()].astype(np.int32)
    return SparseMDP(successors, np.take_along_axis(P, successors[:, None], -1), mdp.R, mdp.terminal, mdp.start)


def dense(mdp: SparseMDP) -> TabularMDP:
    """A concrete process with its whole P [S, A, S].

    Raises ValueError for what is no process, and where P does not fit in memory.
    """
    inputs.process(mdp)
    successors, chance = np.asarray(mdp.next), np.asarray(mdp.chance)
    states, actions, _ = chance.shape
    memory.require(f"P of {states} states and {actions} actions", states**2 * actions * chance.itemsize)
    P = np.zeros((states, actions, states), chance.dtype)
    np.add.at(P, (*np.ogrid[:states, :actions, :1][:2], successors[:, None]), chance)
    R, terminal, start = (np.asarray(leaf) for leaf in (mdp.R, mdp.terminal, mdp.start))
    return TabularMDP(P, R, terminal, start)
