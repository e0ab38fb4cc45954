"""Which group keeps a key, and how one group follows another, as one proposer sees it.

Theory of operation
-------------------
A key's groups form a chain. The first is *founded*; each later one is born of the sealed record of the group
before, and that one is needed until a majority of the new group holds this record: until then it alone may be
able to give birth again. So a proposer remembers the group before, and goes back to it if all who answer in
the present one are unborn.

Groups are learnt from acceptors, too. A later place always wins; at the same place there can be two groups
only if two founders were at work, and then a founder goes over to the group that it hears of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from membership.register import AcceptorId, Group, Place, Record, seal, successor

__all__ = ["Succession"]


class Succession:
    """The present group, the one before, and the one to come.

    Args:
        group: who keeps the key, as far as is known.
        before: a group that kept the key before, if one is known.

    Attributes:
        group: the present one.
        birth: the present group's first record, as long as it may have to be given to somebody.
        is_founder: whether we bring this group to life without one before it.
        must_open: we sealed the epoch before, so this one must be brought to life.
    """

    __slots__ = ("_before", "_seal", "_told_place", "birth", "group", "is_founder", "must_open")

    def __init__(self, group: Group, before: Group | None) -> None:
        self.group = group
        self.birth: Record | None = None
        self.is_founder = False
        self.must_open = False
        self._before = before
        self._seal: tuple[Place, tuple[AcceptorId, ...]] | None = None
        self._told_place = group.place  # the place that the owner knows of

    # ------------------------------------------------------------------ the first group

    def found(self, record: Record) -> None:
        """Begin with a founder's record."""
        self.move_to(Group(key=self.group.key, place=record.place, members=record.members))
        self.is_founder = True
        self.birth = record

    def later_than(self, place: Place) -> Group | None:
        """Return a group that is known to have been born after this place."""
        known = self.group if self.group.settled else self._before
        return known if known is not None and known.place > place else None

    def end_founding(self) -> bool:
        """A founder's work is done, by itself or by another; return whether it was ours."""
        was_founder, self.is_founder = self.is_founder, False
        return was_founder

    # ------------------------------------------------------------------ the next group

    def wish(self, members: Sequence[AcceptorId]) -> None:
        """These shall be the next group; void if the present epoch is over when the wish has its turn."""
        self._seal = self.group.place, tuple(members)

    @property
    def is_wished(self) -> bool:
        """Whether the present epoch is to be sealed."""
        return self._seal is not None and self._seal[0] == self.group.place

    def fulfil(self, record: Record) -> Record:
        """Seal a record of the present epoch if that is wished; the wish is over, however it was."""
        if self._seal is not None and self.is_wished:
            record = seal(record, self._seal[1])
        self._seal = None
        return record

    def follow(self, sealed: Record) -> None:
        """The present epoch is sealed: go on with the group that follows."""
        self.birth = successor(sealed)
        self._before = self.group
        self.group = Group(key=self.group.key, place=self.birth.place, members=self.birth.members)
        self.must_open = True

    def opened(self) -> None:
        """A record was chosen in the present epoch: a majority was born."""
        self.birth = None
        self.must_open = False

    def give_up(self) -> None:
        """Seal and open nothing."""
        self._seal = None
        self.must_open = False

    # ------------------------------------------------------------------ other groups

    def settle(self) -> None:
        """A majority of the present group is known to have been born."""
        self.group = replace(self.group, settled=True)

    def note_place(self, place: Place) -> bool:
        """The owner is told that the key is at this place; return whether that is news to it."""
        is_news, self._told_place = place != self._told_place, place
        return is_news

    def supersedes(self, group: Group) -> bool:
        """Whether a group that we hear of is to be used in place of ours; one that is ours confirms it."""
        mine = self.group
        is_mine = group.place == mine.place and group.members == mine.members
        if is_mine and group.settled:
            self.settle()
        return group.place > mine.place or (group.place == mine.place and self.is_founder and not is_mine)

    def move_to(self, group: Group) -> None:
        """Go on with another group."""
        if group.place != self.group.place:
            self.must_open = False
        if group.place > self.group.place:
            self._before = self.group
        self.group = group
        self.birth = None

    def before(self, heard_of: Group | None) -> Group | None:
        """Return the group that has sealed its epoch in favour of the present one, or one before that.

        None where it has done its part: it may have retired, and would only send us back.

        Args:
            heard_of: an earlier group that an unborn acceptor knows of.
        """
        if self.group.settled:
            return None
        place = self.group.place
        earlier = [
            group
            for group in (heard_of, self._before)
            if group is not None and group.place < place and group.place.generation == place.generation
        ]
        return max(earlier, key=lambda group: group.place, default=None)
