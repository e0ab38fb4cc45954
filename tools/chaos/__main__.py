"""The command of the chaos script."""

import sys

from tools.chaos.cli import main

if __name__ == "__main__":
    sys.exit(main())
