"""How a job runs on real peers: wire, keys, transport, disk, the peer process and the command line.

    from p2p import LocalSwarm, Swarm

The names below are loaded when first used: a command that asks one question should not import what only a
submission needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from p2p.local_swarm import LocalSwarm
    from p2p.swarm_client import Swarm

__all__ = ["LocalSwarm", "Swarm"]

_HOME = {"LocalSwarm": "local_swarm", "Swarm": "swarm_client"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(f"p2p.{_HOME[name]}"), name)
    globals()[name] = value
    return value
