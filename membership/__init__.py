"""Who is here, who owns a key, who leads: pure state machines without sockets, clocks or files."""

from membership.config import LAN, LOCAL, WAN, SwimConfig
from membership.swim import Swim
from membership.view import Member, NodeId, Status, View

__all__ = ["LAN", "LOCAL", "WAN", "Member", "NodeId", "Status", "Swim", "SwimConfig", "View"]
