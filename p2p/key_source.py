"""Where a command's keys come from: a directory, a token, or, on loopback, the first start of a peer."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from p2p import keys
from p2p.errors import BadConfig, KeysMissing
from p2p.keys import Token

if TYPE_CHECKING:
    from p2p.addresses import HostPort

__all__ = ["KeySource"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySource:
    """Where the keys are.

    Attributes:
        directory: holds `keys.json`; None for the default below the user's state directory.
        cluster: its name; None takes that of the keys, or `default`.
        token: a token's text, used instead of any file; None without.
    """

    directory: Path | None = None
    cluster: str | None = None
    token: str | None = None

    @property
    def path(self) -> Path:
        """The directory that holds the keys, or would."""
        if self.directory is not None:
            return self.directory
        return keys.default_directory(self.cluster or keys.DEFAULT_CLUSTER, os.environ)

    def load(self) -> Token:
        """The keys, and the addresses if a token brought some.

        Raises: as `p2p.keys.load` and `p2p.keys.Token.from_text`.
        """
        if self.token is None:
            wanted = self.cluster or (None if self.directory is not None else keys.DEFAULT_CLUSTER)
            return Token(keys.load(self.path, wanted))
        token = Token.from_text(self.token)
        if self.cluster is not None and self.cluster != token.keys.cluster:
            raise BadConfig(f"the token is for cluster {token.keys.cluster!r}, not for {self.cluster!r}")
        return token

    def load_to_serve(self, listen: HostPort) -> Token:
        """As `load`, and on loopback keys are made if there are none.

        Raises:
            KeysMissing: there are none, and others than this machine's users could connect.
        """
        try:
            return self.load()
        except KeysMissing as error:
            if not listen.is_loopback:
                raise KeysMissing(
                    f"listening on {listen} takes keys that the operator has made: {error}"
                ) from None
        from p2p.zmq_transport import new_key_pair

        cluster = self.cluster or keys.DEFAULT_CLUSTER
        return Token(keys.load_or_generate(self.path, cluster, new_key_pair))
