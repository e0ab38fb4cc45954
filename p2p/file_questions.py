"""What clients ask about the ring's files, what peers say to each other about them, and the answers.

=============  ==========================================================  ==========================
question       answer                                                      who may ask
=============  ==========================================================  ==========================
BeginPut       PutBegun: the name is free, or why not                      submit
AskPlaces      PlacesAre: the addresses of who shall hold each block       observe
PutBlock       BlockPut: so much is here; in the end, how many copies      submit
NameFile       FileNamed: all peers will know it, or why not               submit
AskFiles       FilesAre: some names, in order                              observe
AskFile        FileIs: what a name stands for                              observe
AskHolders     HoldersAre: the addresses of who holds each block           observe
-------------  ----------------------------------------------------------  --------------------------
ClaimName      NameClaimed: granted, or why not (`p2p.catalogue`)          peer
UnclaimName    nothing                                                     peer
KeepName       NameKept: the entry is on disk here                         peer
NamesAre       what the sender knows better, and AskNames for the rest     peer
CompareNames   NamesHere, where catalogues differ; else nothing            peer
HoldsBlocks    nothing: the blocks of some files that the sender has       peer
CompareBlocks  AskBlocks, where this is not what was heard before          peer
AskBlocks      HoldsBlocks, with all of them                               peer
PutsGoOn       nothing: more of these files is on its way                  peer
=============  ==========================================================  ==========================

Blocks are read as parts of results are, by `ReadPart` (`p2p.job_questions`) and `FetchSegment`
(`p2p.job_inquiries`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from p2p.blocks import DIGEST_BYTES, MAX_BLOCKS
from p2p.catalogue import MAX_NAME_CHARS, Entry, NameRow
from p2p.job_questions import CHUNK_BYTES
from p2p.name_bounds import WORD
from p2p.roles import Role
from p2p.schema import Bounds
from p2p.wire import Kind

__all__ = [
    "ENTRY_BOUNDS",
    "FILES_AT_A_TIME",
    "FILE_KINDS",
    "NAMES_AT_A_TIME",
    "PLACES_AT_A_TIME",
    "AskBlocks",
    "AskFile",
    "AskFiles",
    "AskHolders",
    "AskNames",
    "AskPlaces",
    "BeginPut",
    "BlockPut",
    "ClaimName",
    "CompareBlocks",
    "CompareNames",
    "FileIs",
    "FileNamed",
    "FileRow",
    "FilesAre",
    "HeldFile",
    "HoldersAre",
    "HoldsBlocks",
    "KeepName",
    "NameClaimed",
    "NameFile",
    "NameKept",
    "NamesHere",
    "PlaceRow",
    "PlacesAre",
    "PutBegun",
    "PutBlock",
    "PutsGoOn",
    "UnclaimName",
]

NAMES_AT_A_TIME = 1_000
PLACES_AT_A_TIME = 1_000
FILES_AT_A_TIME = 1_000
MAX_HEADER_BYTES = 4_096


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceRow:
    """The addresses of the peers of one block."""

    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRow:
    """A line of the list of files; `copies` is that of the block with the fewest (`replicas` if none)."""

    name: str
    file: str
    size_bytes: int
    blocks: int
    replicas: int
    copies: int
    made_at_s: float
    expires_at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldFile:
    """The blocks of a file that lie with the sender: bit i of the little-endian `blocks` is block i."""

    file: str
    blocks: bytes


# -- clients --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class BeginPut:
    """May I put a file of this size under this name?"""

    number: int
    name: str
    replaces: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PutBegun:
    """Yes (`reason` ""), begin; or "name", "exists", "full": `text` says it in one line."""

    number: int
    reason: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AskPlaces:
    """Who shall hold the blocks of this file, from number `first` on?"""

    number: int
    file: str
    blocks: int
    replicas: int
    first: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacesAre:
    """Those, the preferred one first, for some blocks from `first` on."""

    number: int
    first: int
    rows: tuple[PlaceRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PutBlock:
    """Bytes of a block's segment, from `offset` of its body on; its header comes with the first of them.

    `copies` is how many are to be made of it, and `blocks` how many the file has.
    """

    number: int
    upload: str
    header: bytes
    offset: int
    data: bytes
    blocks: int
    copies: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockPut:
    """So much is here; the next chunk begins there. When all is: `copies` is how many there are, else 0.

    `reason` is "" or why the block is not taken.
    """

    number: int
    upload: str
    received: int
    copies: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NameFile:
    """Let a name stand for this; the version is not the client's to choose."""

    number: int
    entry: Entry
    replaces: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FileNamed:
    """It does (`reason` ""), at a majority of the peers, and soon at all.

    Else "exists", "unknown" (there is nothing to remove), "busy", "quorum", "name", "disk", or "lacking":
    nobody is known to hold the blocks whose bits are set in the little-endian `lacking`; `text` says it in
    one line.
    """

    number: int
    reason: str = ""
    text: str = ""
    lacking: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class AskFiles:
    """Which names are there that begin so, behind `after`?"""

    number: int
    prefix: str
    after: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesAre:
    """Some of them, in order; `more`: there are others behind them."""

    number: int
    rows: tuple[FileRow, ...]
    more: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AskFile:
    """What does this name stand for?"""

    number: int
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FileIs:
    """For this; None: for nothing, and `near` may have been meant."""

    number: int
    entry: Entry | None
    near: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AskHolders:
    """Who holds the blocks of this file, from number `first` on?"""

    number: int
    file: str
    blocks: int
    first: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldersAre:
    """Those, as far as the peer has heard, for some blocks from `first` on."""

    number: int
    first: int
    rows: tuple[PlaceRow, ...]


# -- peers ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimName:
    """Let this put have the name for a while; it may take the place of a file only if it `replaces`."""

    number: int
    name: str
    put: str
    replaces: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class NameClaimed:
    """Granted (`reason` ""), or not; `version` is that of the name as far as it is known here."""

    number: int
    version: int
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnclaimName:
    """The put does not want the name any more."""

    name: str
    put: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepName:
    """Write this entry down; `number` -1: without an answer."""

    number: int
    entry: Entry


@dataclass(frozen=True, slots=True, kw_only=True)
class NameKept:
    """It is on disk (`reason` ""), or why not."""

    number: int
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareNames:
    """This is the state of my catalogue; is it yours?"""

    state: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class NamesHere:
    """It is not; this is what I know of the names behind `after` up to `last` ("": to the end)."""

    rows: tuple[NameRow, ...]
    after: str
    last: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AskNames:
    """Send me these entries; and compare your names behind `more_after` with me too, unless it is ""."""

    names: tuple[str, ...]
    more_after: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldsBlocks:
    """These blocks of these files lie with me; `is_all`: and of other files none."""

    rows: tuple[HeldFile, ...]
    is_all: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareBlocks:
    """This is a digest of all blocks that lie with me."""

    state: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class AskBlocks:
    """It is not what I have heard: tell me all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PutsGoOn:
    """A client brings me more of these files: what lies with you of them has yet to wait for its name."""

    files: tuple[str, ...]


# -- the table ------------------------------------------------------------------------------------------

_ID = Bounds(text_chars=40, pattern=r"[0-9a-f]{40}")
_NAME = Bounds(text_chars=MAX_NAME_CHARS)
_COUNT = Bounds(most=MAX_BLOCKS)
_REPLICAS = Bounds(least=1, most=8)
_STATE = Bounds(bytes_len=16)
_REASON = Bounds(text_chars=64)
_TEXT = Bounds(text_chars=4_096)
# One more must still be a number that can be sent.
_VERSION = Bounds(most=1 << 62)
ENTRY_BOUNDS: dict[str, Bounds] = {
    "Entry.name": _NAME,
    "Entry.version": _VERSION,
    "Entry.file": _ID,
    "Entry.block_bytes": Bounds(least=1, most=1 << 32),
    "Entry.size_bytes": Bounds(most=1 << 48),
    "Entry.digests": Bounds(bytes_len=DIGEST_BYTES * MAX_BLOCKS),
    "Entry.replicas": _REPLICAS,
}
_ADDRESSES = {"PlaceRow.addresses": Bounds(items=64, text_chars=255, pattern=WORD)}


def _row(tag: int, message: type, role: Role, bounds: Mapping[str, Bounds] | None = None) -> Kind:
    return Kind(tag=tag, message=message, role=role, bounds=bounds or {})


FILE_KINDS: tuple[Kind, ...] = (
    _row(106, BeginPut, Role.SUBMIT, {"BeginPut.name": _NAME}),
    _row(107, PutBegun, Role.PEER, {"PutBegun.text": _TEXT}),
    _row(
        108,
        AskPlaces,
        Role.OBSERVE,
        {
            "AskPlaces.file": _ID,
            "AskPlaces.blocks": _COUNT,
            "AskPlaces.replicas": _REPLICAS,
            "AskPlaces.first": _COUNT,
        },
    ),
    _row(109, PlacesAre, Role.PEER, _ADDRESSES),
    _row(
        110,
        PutBlock,
        Role.SUBMIT,
        {
            "PutBlock.upload": _ID,
            "PutBlock.header": Bounds(bytes_len=MAX_HEADER_BYTES),
            "PutBlock.data": Bounds(bytes_len=CHUNK_BYTES),
            "PutBlock.blocks": _COUNT,
            "PutBlock.copies": _REPLICAS,
        },
    ),
    _row(111, BlockPut, Role.PEER, {"BlockPut.upload": _ID, "BlockPut.reason": _TEXT}),
    _row(112, NameFile, Role.SUBMIT, ENTRY_BOUNDS),
    _row(
        113,
        FileNamed,
        Role.PEER,
        {
            "FileNamed.reason": _REASON,
            "FileNamed.text": _TEXT,
            "FileNamed.lacking": Bounds(bytes_len=MAX_BLOCKS // 8),
        },
    ),
    _row(114, AskFiles, Role.OBSERVE, {"AskFiles.prefix": _NAME, "AskFiles.after": _NAME}),
    _row(115, FilesAre, Role.PEER, {"FileRow.name": _NAME, "FileRow.file": _ID}),
    _row(116, AskFile, Role.OBSERVE, {"AskFile.name": _NAME}),
    _row(117, FileIs, Role.PEER, {**ENTRY_BOUNDS, "FileIs.near": _NAME}),
    _row(
        118,
        AskHolders,
        Role.OBSERVE,
        {"AskHolders.file": _ID, "AskHolders.blocks": _COUNT, "AskHolders.first": _COUNT},
    ),
    _row(119, HoldersAre, Role.PEER, _ADDRESSES),
    _row(131, ClaimName, Role.PEER, {"ClaimName.name": _NAME, "ClaimName.put": _ID}),
    _row(132, NameClaimed, Role.PEER, {"NameClaimed.version": _VERSION, "NameClaimed.reason": _REASON}),
    _row(133, UnclaimName, Role.PEER, {"UnclaimName.name": _NAME, "UnclaimName.put": _ID}),
    _row(134, KeepName, Role.PEER, {**ENTRY_BOUNDS, "KeepName.number": Bounds(least=-1)}),
    _row(135, NameKept, Role.PEER, {"NameKept.reason": _TEXT}),
    _row(136, CompareNames, Role.PEER, {"CompareNames.state": _STATE}),
    _row(
        137,
        NamesHere,
        Role.PEER,
        {
            "NameRow.name": _NAME,
            "NameRow.version": _VERSION,
            "NameRow.file": _ID,
            "NamesHere.rows": Bounds(items=NAMES_AT_A_TIME),
            "NamesHere.after": _NAME,
            "NamesHere.last": _NAME,
        },
    ),
    _row(
        138,
        AskNames,
        Role.PEER,
        {
            "AskNames.names": Bounds(items=NAMES_AT_A_TIME, text_chars=MAX_NAME_CHARS),
            "AskNames.more_after": _NAME,
        },
    ),
    _row(
        139,
        HoldsBlocks,
        Role.PEER,
        {
            "HeldFile.file": _ID,
            "HeldFile.blocks": Bounds(bytes_len=MAX_BLOCKS // 8),
            "HoldsBlocks.rows": Bounds(items=FILES_AT_A_TIME),
        },
    ),
    _row(140, CompareBlocks, Role.PEER, {"CompareBlocks.state": _STATE}),
    _row(141, AskBlocks, Role.PEER),
    _row(142, PutsGoOn, Role.PEER, {"PutsGoOn.files": Bounds(items=FILES_AT_A_TIME, text_chars=40)}),
)
