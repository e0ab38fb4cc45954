"""What names may look like on the wire, wherever they stand: of nodes, disks and jobs.

Names stand in log lines, tables and paths, so they hold no spaces and no control characters.  A node's may be
empty where there need be none, as of a job that nobody leads.
"""

from __future__ import annotations

from p2p.schema import Bounds

__all__ = ["ACCEPTOR", "JOB", "NODE", "NODES", "WORD"]

WORD = r"[\x21-\x7e]*"
NODE = Bounds(text_chars=64, pattern=WORD)
NODES = Bounds(items=64, text_chars=64, pattern=WORD)
"""Of a group, or of those who hold something."""

ACCEPTOR = {"AcceptorId.node": NODE, "AcceptorId.disk": NODE}
JOB = Bounds(text_chars=32, pattern=r"[0-9a-f]{32}")
