"""Puts: blocks of new files on their way from clients to the ring, as one peer sees them.

Theory
------
The client sends each block to its first place.  When all of it is here and its digest fits, it is sent on to
the block's other places, and the client hears how many copies there are; it names the file when all blocks
have theirs.  What is said again is answered again: a block that is here already is not written twice.

*Bounds.*  At most `MAX_UPLOADS` blocks are remembered.  One that is stored, and has all its copies, is known
by its block and goes first; else the one that has been silent for longest.  A client that has not been heard
for `UPLOAD_IDLE_S` is gone, and what it sent half is removed.

*A put lasts as long as it moves*, not so long in all.  The other blocks of the file wait on other peers for
their name, and go when nothing has come of it for a while (`p2p.replication`); one block over a slow link may
take longer than that.  So as long as bytes of it come, or its copies are on their way, all are told.

⚙ Writes segments, through the store.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from membership.view import NodeId
from p2p import file_questions as f
from p2p.blocks import block_of, is_file_id
from p2p.incoming import Incoming
from p2p.segments import FILE_STAGE, DamagedSegment
from p2p.store import StoreFull

if TYPE_CHECKING:
    from p2p.block_keeper import BlockKeeper
    from p2p.job_service import JobService
    from p2p.transport import Connection

__all__ = ["BlockPuts"]

MAX_UPLOADS = 64
UPLOAD_IDLE_S = 60.0


@dataclass(slots=True)
class _Upload:
    """A block that a client sends; `waiting` are peers that have not acknowledged their copy, `has_moved`
    says that something of it came since everybody was last told.
    """

    file: str
    block: int
    blocks: int
    copies: int
    size: int
    client: tuple[Connection, int]
    heard_at: float
    incoming: Incoming | None
    has_moved: bool = True
    waiting: set[NodeId] = field(default_factory=set)
    is_stored: bool = False


class BlockPuts:
    """The blocks that clients send to this peer.

    Args:
        desk: the service that it is a part of.
        keeper: knows the places of blocks, and brings them there.
    """

    def __init__(self, desk: JobService, keeper: BlockKeeper) -> None:
        self._desk = desk
        self._keeper = keeper
        self._uploads: OrderedDict[str, _Upload] = OrderedDict()

    def on_put(self, put: f.PutBlock, connection: Connection, now: float) -> None:
        """Take some of a block from a client."""
        upload = self._uploads.get(put.upload)
        if upload is not None and upload.is_stored and not self._keeper.holds(upload.file, upload.block):
            del self._uploads[put.upload]  # it has been dropped meanwhile, and has to be sent again
            upload = None
        reason = ""
        if upload is None and put.offset == 0 and put.header:
            try:
                upload = self._begin_upload(put, connection, now)
            except StoreFull as error:
                reason = str(error)
            except (DamagedSegment, OSError) as error:
                reason = f"it cannot be stored: {getattr(error, 'strerror', None) or error}"
        if upload is None:
            self._answer(connection, put, 0, reason=reason)
            return
        upload.client = (connection, put.number)
        upload.heard_at = now
        if put.upload in self._uploads:
            self._uploads.move_to_end(put.upload)
        incoming = upload.incoming
        if incoming is not None:
            try:
                if put.offset == incoming.received:
                    incoming.write(put.data)
                    upload.has_moved |= bool(put.data)
                received = incoming.received
                if received == incoming.size:
                    upload.incoming = None
                    incoming.finish()
                    self._stored(put.upload, upload, now)
                    return
            except (DamagedSegment, OSError) as error:
                incoming.abort()
                del self._uploads[put.upload]
                text = f"it cannot be stored: {getattr(error, 'strerror', None) or error}"
                self._answer(connection, put, 0, reason=text)
                return
            self._answer(connection, put, received)
        else:
            self._tell(put.upload, upload)

    def _begin_upload(self, put: f.PutBlock, connection: Connection, now: float) -> _Upload:
        incoming = self._desk.store.receive(put.header)
        file, stage, covers = incoming.place
        if not is_file_id(file) or stage != FILE_STAGE or len(covers.attempts) != 1:
            incoming.abort()
            raise DamagedSegment("it is no block of a file")
        block = block_of(covers.attempts[0])
        if block >= put.blocks:
            incoming.abort()
            raise DamagedSegment(f"it is block {block} of a file of {put.blocks}")
        upload = _Upload(
            file,
            block,
            put.blocks,
            put.copies,
            incoming.size,
            (connection, put.number),
            now,
            incoming,
        )
        while len(self._uploads) >= MAX_UPLOADS:
            # One that is stored is known by its block; else the one that has been silent for longest goes.
            over = next(
                (name for name, one in self._uploads.items() if one.is_stored and not one.waiting), ""
            )
            _abort(self._uploads.pop(over or next(iter(self._uploads))))
        self._uploads[put.upload] = upload
        if self._keeper.holds(file, block):  # said again by a client that has not heard of it
            incoming.abort()
            upload.incoming = None
            self._stored(put.upload, upload, now)
        return upload

    def _stored(self, name: str, upload: _Upload, now: float) -> None:
        """A block is here: bring it to its other places."""
        self._keeper.take_stock(now)
        row = self._keeper.places(upload.file, upload.blocks, upload.copies)[upload.block]
        others = [node for node in row if node != self._desk.me][: upload.copies - 1]
        upload.is_stored = True
        upload.waiting = set(others)
        for node in others:
            self._keeper.send(upload.file, upload.block, node, now, is_repair=False)
        self._tell(name, upload)

    def _tell(self, name: str, upload: _Upload) -> None:
        """Answer a client's chunk: with the number of copies as soon as there are all that there will be."""
        copies = 0
        if upload.is_stored and not upload.waiting:
            here = [member.id for member in self._desk.swim.view.ring_members]
            copies = max(1, len(self._keeper.holdings.of(upload.file, upload.block, here)))
        connection, number = upload.client
        answer = f.BlockPut(number=number, upload=name, received=upload.size, copies=copies)
        self._desk.answer(connection, answer)

    def _answer(self, connection: Connection, put: f.PutBlock, received: int, reason: str = "") -> None:
        answer = f.BlockPut(number=put.number, upload=put.upload, received=received, reason=reason[:1_000])
        self._desk.answer(connection, answer)

    def no_more_awaited(self, file: str, block: int, node: NodeId) -> None:
        """A copy has come to its place, or will not."""
        for name, upload in self._uploads.items():
            if (upload.file, upload.block) == (file, block) and node in upload.waiting:
                upload.waiting.discard(node)
                if not upload.waiting:
                    self._tell(name, upload)

    def moving(self) -> tuple[str, ...]:
        """Return the files of which something came since this was last asked, or is being copied."""
        found = {one.file for one in self._uploads.values() if one.has_moved or one.waiting}
        for upload in self._uploads.values():
            upload.has_moved = False
        return tuple(sorted(found))

    def drop_idle(self, now: float) -> None:
        """Remove what a client has sent that is gone."""
        for name, upload in list(self._uploads.items()):
            if now - upload.heard_at > UPLOAD_IDLE_S:
                del self._uploads[name]
                _abort(upload)

    def close(self) -> None:
        """Remove what has come half."""
        for upload in self._uploads.values():
            _abort(upload)
        self._uploads.clear()


def _abort(upload: _Upload) -> None:
    if upload.incoming is not None:
        upload.incoming.abort()
