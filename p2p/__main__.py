"""`python -m p2p` is `ringreduce`."""

from p2p.cli import main

main()
