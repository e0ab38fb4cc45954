"""Specs too large for one message, on their way in from clients.  Pure.

Chunks come in order; of one that is lost the client hears by how far the upload is.  Uploads are bounded in
number and size: the one that has been silent for longest goes first, and one that nobody goes on with is
dropped.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from p2p import job_questions as q

__all__ = ["Uploads"]

MAX_UPLOADS = 16
MAX_UPLOAD_BYTES = 128 << 20
UPLOAD_IDLE_S = 60.0


@dataclass(slots=True)
class _Upload:
    data: bytearray
    size_bytes: int
    heard_at: float


class Uploads:
    """Those of one peer."""

    def __init__(self) -> None:
        self._uploads: OrderedDict[str, _Upload] = OrderedDict()

    def take(self, chunk: q.Upload, now: float) -> q.Uploaded:
        """Take a chunk; returns how far it is."""
        upload = self._uploads.get(chunk.upload)
        if upload is None and chunk.offset == 0 and chunk.size_bytes <= MAX_UPLOAD_BYTES:
            if len(self._uploads) >= MAX_UPLOADS:
                self._uploads.popitem(last=False)
            upload = self._uploads[chunk.upload] = _Upload(bytearray(), chunk.size_bytes, now)
        received = 0
        if upload is not None:
            upload.heard_at = now
            self._uploads.move_to_end(chunk.upload)
            fits = len(upload.data) + len(chunk.data) <= upload.size_bytes
            if chunk.offset == len(upload.data) and fits:
                upload.data += chunk.data
            received = len(upload.data)
        return q.Uploaded(number=chunk.number, upload=chunk.upload, received=received)

    def whole(self, name: str) -> bytes | None:
        """Return what was uploaded, None while something of it is missing."""
        upload = self._uploads.get(name)
        if upload is None or len(upload.data) != upload.size_bytes:
            return None
        return bytes(upload.data)

    def tick(self, now: float) -> None:
        """Drop what nobody goes on with."""
        for name, upload in list(self._uploads.items()):
            if now - upload.heard_at > UPLOAD_IDLE_S:
                del self._uploads[name]
