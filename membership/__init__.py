"""Who is here, who owns a key, who leads: pure state machines without sockets, clocks or files.

The names below are loaded when first used: whoever needs only what a member is should not load how one is
probed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from membership.config import LAN, LOCAL, WAN, SwimConfig
    from membership.swim import Swim
    from membership.view import Member, NodeId, Status, View

__all__ = ["LAN", "LOCAL", "WAN", "Member", "NodeId", "Status", "Swim", "SwimConfig", "View"]

_HOME = {"LAN": "config", "LOCAL": "config", "WAN": "config", "SwimConfig": "config", "Swim": "swim"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(f"membership.{_HOME.get(name, 'view')}"), name)
    globals()[name] = value
    return value
