"""Is a register linearizable? An exact answer, given while the history grows.

Theory
------
Every operation on the registers of this world is "append my token unless it is there, and show me the log",
or "show me the log". Because the log shows everything that ever took effect, in order, nothing has to be
searched for: a history of such operations is linearizable exactly when

1. all logs ever shown are prefixes of one another, hold no token twice, and none that nobody had begun to
   append;
2. an append that was acknowledged is in the log it was shown, at a position that no acknowledged log had
   reached before the append began;
3. an operation is shown everything that any operation was shown that had ended before it began.

*Enough:* put each append at its token's position and each look behind the last token it shows. Points 2 and 3
say that this order contradicts no "ended before it began", point 1 that every operation is shown what it must
be. *Necessary:* each of them is a real-time order or a sequence that would have to be violated. (Where an
append was tried twice, the log it is shown may be longer than its own token: it then counts as the append
followed by a look.)

A terminal token closes the log: nothing may come after it, and an append that finds it is shown the log
without its own token.

`tests/tools/test_register_history.py` holds this against a search over all orders (J. M. Wing and C. Gong,
"Testing and Verifying Concurrent Objects", 1993).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

__all__ = ["CLOSING", "LogHistory", "NotLinearizable"]

CLOSING = "!"  # a token that begins so closes the log


class NotLinearizable(Exception):
    """No single register can have shown what this one has shown."""


@dataclass(slots=True)
class LogHistory:
    """What the clients of one register have seen so far.

    ``begun`` holds the tokens that somebody has begun to append; registers that share clients share it.
    """

    begun: set[str] = field(default_factory=set)
    log: list[str] = field(default_factory=list)  # the longest that was shown
    acknowledged: int = 0  # how much of it, in all: what an operation that begins now must be shown
    appends: int = 0
    looks: int = 0

    @property
    def closed(self) -> bool:
        """Whether a closing token was shown to somebody."""
        return bool(self.log) and self.log[-1].startswith(CLOSING)

    def end(self, who: str, token: str | None, shown: Sequence[str], acknowledged_before: int) -> None:
        """An operation was answered.

        Args:
            who: names the operation in an error.
            token: what it appends; None for a look.
            shown: the log it was answered with.
            acknowledged_before: ``acknowledged`` when it began.

        Raises:
            NotLinearizable: with the reason.
        """
        who = f"{who} was shown {_brief(shown)}"
        self._extend(shown, who)
        if len(shown) < acknowledged_before:
            raise NotLinearizable(f"{who}; {acknowledged_before} tokens had been shown before it began")
        if token is None:
            self.looks += 1
        elif token in shown:
            self.appends += 1
            if shown.index(token) < acknowledged_before:
                raise NotLinearizable(f"{who}; its token {token} was in the log before it began")
        elif not shown or not shown[-1].startswith(CLOSING):
            raise NotLinearizable(f"{who}, where its own token {token} is missing")
        self.acknowledged = max(self.acknowledged, len(shown))

    def _extend(self, shown: Sequence[str], who: str) -> None:
        """Check point 1, and take over what was not shown before."""
        log = self.log
        shared = min(len(shown), len(log))
        for at in range(shared):
            if shown[at] != log[at]:
                raise NotLinearizable(f"{who}; somebody saw another token at {at}: {_brief(log)}")
        for token in shown[shared:]:
            if token not in self.begun:
                raise NotLinearizable(f"{who}; nobody has begun to append {token}")
            if token in log:
                raise NotLinearizable(f"{who}; {token} stands in it twice")
            if self.closed:
                raise NotLinearizable(f"{who}; the log had been closed by {log[-1]}")
            log.append(token)


def _brief(log: Sequence[str]) -> str:
    tail = " ".join(log[-6:])
    return f"[{'… ' if len(log) > 6 else ''}{tail}] ({len(log)} tokens)"
