"""What all tests share: signals as a terminal leaves them.

A shell starts what it puts into the background with Ctrl-C ignored, and every process started from there
inherits that.  Commands honour it, as they should: so what tests of interruptions send would be ignored too,
and they would wait for ever.
"""

from __future__ import annotations

import signal

for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)
