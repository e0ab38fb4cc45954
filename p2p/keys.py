"""The cluster's keys: who may serve, who may speak, and how a newcomer gets them.

Theory
------
A cluster has four CURVE key pairs.  The *ring* pair is the one every peer serves with: who connects knows
its public half, so an impostor cannot answer.  The *peer*, *submit* and *observe* pairs are what one
connects with: a peer knows the public halves, and reads from the half that was used what the other side may
do (`p2p.roles`).  All peers of a cluster hold the same set, because any of them must be able to answer for
any other; a peer that lies is outside the promises.  There is no pair for each peer: it would have to be
told to all the others before its first word.

One file holds the set, `keys.json`, mode 0600.  A *token* is the same content cut down to what a role
needs, in one line of text with a checksum, so that a torn copy is named as such.

**Made once.**  Two peers that start at the same moment on a fresh machine must end with one set.  Each
writes a temporary file and links it to the final name; a link never replaces, so exactly one succeeds,
and both then read what stands there.  A reader never sees half a file.

**Made silently only where it is harmless**: on loopback, for one user.  Anywhere else the operator says
`ringreduce init`, or brings a token.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

from p2p.errors import BadConfig, KeysMissing, KeysUnsafe, KeysUnusable
from p2p.roles import Role

__all__ = [
    "DEFAULT_CLUSTER",
    "KEY_FILE",
    "KeyPair",
    "KeySet",
    "Token",
    "check_cluster_name",
    "default_directory",
    "generate",
    "load",
    "load_or_generate",
    "store",
]

DEFAULT_CLUSTER = "default"
KEY_FILE = "keys.json"
TOKEN_PREFIX = "rr1."
CHECKSUM_BYTES = 4
MAX_FILE_BYTES = 16 * 1024
MAX_TOKEN_CHARS = 8 * 1024
MAX_TOKEN_ADDRESSES = 16

_CLUSTER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_Z85_KEY = re.compile(r"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A CURVE pair in Z85 text; `secret` is None where only the public half is known here."""

    public: str
    secret: str | None = field(default=None, repr=False)

    def without_secret(self) -> KeyPair:
        """The half that may be shown."""
        return KeyPair(self.public)


@dataclass(frozen=True, slots=True)
class KeySet:
    """The keys of a cluster as far as they are known here."""

    cluster: str
    ring: KeyPair
    roles: Mapping[Role, KeyPair]

    @property
    def may_serve(self) -> bool:
        """Whether a peer can run with this set."""
        return (
            self.ring.secret is not None
            and all(role in self.roles for role in Role)
            and self.roles[Role.PEER].secret is not None
        )

    @property
    def strongest_role(self) -> Role:
        """The highest role in which one can connect."""
        return max(role for role, pair in self.roles.items() if pair.secret is not None)

    def restricted_to(self, role: Role) -> KeySet:
        """What a holder of that role needs, and no more; a peer needs everything.

        Raises:
            KeysUnusable: this set itself does not hold that role's secret.
        """
        if role is Role.PEER:
            if not self.may_serve:
                raise KeysUnusable(
                    f"the keys here are for {self.strongest_role.label} only: make a peer's token on a peer"
                )
            return self
        pair = self.roles.get(role)
        if pair is None or pair.secret is None:
            raise KeysUnusable(f"the keys here hold no {role.label} key: make the token on a peer")
        return KeySet(self.cluster, self.ring.without_secret(), {role: pair})


@dataclass(frozen=True, slots=True)
class Token:
    """What a newcomer is given: keys, and addresses to begin with."""

    keys: KeySet
    addresses: tuple[str, ...] = ()

    def to_text(self) -> str:
        """One line of URL-safe text.  It holds secrets."""
        body = json.dumps(
            {**_to_json(self.keys), "addresses": list(self.addresses)}, separators=(",", ":"), sort_keys=True
        ).encode()
        return TOKEN_PREFIX + base64.urlsafe_b64encode(_checksum(body) + body).decode().rstrip("=")

    @classmethod
    def from_text(cls, text: str) -> Token:
        """Read what `to_text` wrote, white space around and within it ignored.

        Raises:
            KeysUnusable: it is no token, a torn one, or one of another format.
        """
        text = "".join(text.split())
        if not text.startswith(TOKEN_PREFIX) or len(text) > MAX_TOKEN_CHARS:
            raise KeysUnusable(
                f"that is no token: it should begin with {TOKEN_PREFIX!r}, as 'ringreduce token' prints it"
            )
        try:
            encoded = text.removeprefix(TOKEN_PREFIX)
            raw = base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raise KeysUnusable("the token is damaged: copy the whole line again") from None
        body = raw[CHECKSUM_BYTES:]
        if raw[:CHECKSUM_BYTES] != _checksum(body):
            raise KeysUnusable("the token is damaged or incomplete: copy the whole line again")
        content = _parse(body, "the token")
        addresses = content.pop("addresses", [])
        if not isinstance(addresses, list) or len(addresses) > MAX_TOKEN_ADDRESSES:
            raise KeysUnusable("the token's addresses are not a short list")
        if not all(isinstance(address, str) for address in addresses):
            raise KeysUnusable("the token's addresses are not text")
        return cls(_from_json(content, "the token"), tuple(addresses))


def check_cluster_name(name: str) -> str:
    """The name itself.

    Raises:
        BadConfig: it has characters that a path or a log line should not hold.
    """
    if not _CLUSTER_NAME.fullmatch(name):
        raise BadConfig(
            f"{name!r} cannot name a cluster: 1 to 63 letters, digits, dots, dashes and underscores,"
            " beginning with a letter or digit"
        )
    return name


def default_directory(cluster: str, environ: Mapping[str, str]) -> Path:
    """Where the keys of a cluster lie when nobody says otherwise: below the user's state directory."""
    base = environ.get("XDG_STATE_HOME", "")
    root = (
        Path(base) if base.startswith("/") else Path(environ.get("HOME") or Path.home()) / ".local" / "state"
    )
    return root / "ringreduce" / check_cluster_name(cluster)


def generate(cluster: str, new_pair: Callable[[], KeyPair]) -> KeySet:
    """A fresh set for a cluster; `new_pair` draws a CURVE pair from the system's randomness."""
    return KeySet(check_cluster_name(cluster), new_pair(), {role: new_pair() for role in Role})


def store(keys: KeySet, directory: Path) -> bool:
    """Write the set where none lies yet; False, and nothing changed, when one lies there.

    Raises:
        KeysUnusable: the directory cannot be made or written.
    """
    path = directory / KEY_FILE
    temporary = directory / f".{KEY_FILE}.{os.urandom(8).hex()}"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(json.dumps(_to_json(keys), indent=2).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
            return _link_if_absent(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise KeysUnusable(f"keys cannot be written to {directory}: {error.strerror}") from None


def _link_if_absent(source: Path, target: Path) -> bool:
    try:
        os.link(source, target)
    except FileExistsError:
        return False
    return True


def load(directory: Path, cluster: str | None = None) -> KeySet:
    """Read the set that lies in a directory.

    Args:
        directory: where `keys.json` lies.
        cluster: the name the set must have; None takes any.

    Raises:
        KeysMissing: there is none.
        KeysUnsafe: others may read the file, or change it or its directory.
        KeysUnusable: it is damaged.
        BadConfig: it belongs to another cluster.
    """
    path = directory / KEY_FILE
    try:
        with path.open("rb") as file:
            _refuse_unsafe(os.fstat(file.fileno()), path, 0o077, "600")
            content = file.read(MAX_FILE_BYTES + 1)
        _refuse_unsafe(directory.stat(), directory, 0o022, "700")
    except (FileNotFoundError, NotADirectoryError):
        raise KeysMissing(
            f"no keys in {directory}: the first peer on this machine makes them, or 'ringreduce init' does;"
            " 'ringreduce init --token -' takes those that 'ringreduce token' prints on another machine"
        ) from None
    except OSError as error:
        raise KeysUnusable(f"{path} cannot be read: {error.strerror}") from None
    if len(content) > MAX_FILE_BYTES:
        raise KeysUnusable(f"{path} is too large to be a key file")
    keys = _from_json(_parse(content, str(path)), str(path))
    if cluster is not None and keys.cluster != cluster:
        raise BadConfig(f"{path} holds the keys of cluster {keys.cluster!r}, not of {cluster!r}")
    return keys


def load_or_generate(directory: Path, cluster: str, new_pair: Callable[[], KeyPair]) -> KeySet:
    """The set of a cluster on this machine, made now if there is none; safe against another process doing the
    same.

    Raises: as `load` and `store`.
    """
    try:
        return load(directory, cluster)
    except KeysMissing:
        store(generate(cluster, new_pair), directory)
        return load(directory, cluster)  # ours, or that of who was faster


def _refuse_unsafe(status: os.stat_result, path: Path, forbidden: int, remedy: str) -> None:
    if status.st_uid not in (os.geteuid(), 0):
        raise KeysUnsafe(f"{path} belongs to user {status.st_uid}, not to you: keys must be your own")
    mode = stat.S_IMODE(status.st_mode)
    if mode & forbidden:
        raise KeysUnsafe(
            f"{path} has mode {mode:04o}, others could use the keys: run 'chmod {remedy} {path}'"
        )


def _checksum(body: bytes) -> bytes:
    return blake2b(body, digest_size=CHECKSUM_BYTES, person=b"ringreduce-token").digest()


def _to_json(keys: KeySet) -> dict[str, Any]:
    pairs = {"ring": keys.ring, **{role.label: pair for role, pair in sorted(keys.roles.items())}}
    return {
        "cluster": keys.cluster,
        "keys": {
            name: {"public": pair.public} | ({"secret": pair.secret} if pair.secret is not None else {})
            for name, pair in pairs.items()
        },
    }


def _parse(content: bytes, where: str) -> dict[str, Any]:
    try:
        parsed = json.loads(content)
    except (ValueError, RecursionError):
        raise KeysUnusable(f"{where} is damaged: it is no JSON") from None
    if not isinstance(parsed, dict):
        raise KeysUnusable(f"{where} is damaged: it is no set of keys")
    return parsed


def _from_json(content: dict[str, Any], where: str) -> KeySet:
    cluster, pairs = content.get("cluster"), content.get("keys")
    if not isinstance(cluster, str) or not _CLUSTER_NAME.fullmatch(cluster):
        raise KeysUnusable(f"{where} is damaged: it names no cluster")
    if not isinstance(pairs, dict) or "ring" not in pairs:
        raise KeysUnusable(f"{where} is damaged: the ring's public key is missing")
    roles: dict[Role, KeyPair] = {}
    for name, pair in pairs.items():
        made = _pair_from_json(pair, f"{where}, key {name!r}")
        if name == "ring":
            ring = made
        elif (role := Role.from_label(name)) is not None:
            roles[role] = made
        else:
            raise KeysUnusable(f"{where}: {name!r} is no role this version knows")
    if not any(pair.secret for pair in roles.values()):
        raise KeysUnusable(f"{where} holds no secret key to connect with")
    return KeySet(cluster, ring, roles)


def _pair_from_json(pair: Any, where: str) -> KeyPair:
    if not isinstance(pair, dict) or not set(pair) <= {"public", "secret"}:
        raise KeysUnusable(f"{where} is damaged")
    public, secret = pair.get("public"), pair.get("secret")
    for half in (public,) if secret is None else (public, secret):
        if not isinstance(half, str) or not _Z85_KEY.fullmatch(half):
            raise KeysUnusable(f"{where} is damaged: it is no CURVE key")
    assert isinstance(public, str)
    return KeyPair(public, secret)
