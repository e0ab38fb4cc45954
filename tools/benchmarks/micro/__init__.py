"""Micro-benchmarks of the hot paths, one file a path; none of them runs with the tests.

    pip install -e '.[bench]' && python -m pytest tools/benchmarks/micro [--benchmark-compare …]

==================  ==================================================================================
``test_records``    a record's key and value: encoded, decoded, hashed to a partition
``test_shuffle``    a task's pairs: grouped, combined, cut, sorted, written as runs, merged again
``test_store``      a segment: described, written and checked on its way in, verified where it lies
``test_wire``       a message: to a frame and back
``test_ring``       a key's owners, a stage's tasks, a ring that changes
``test_gossip``     one turn of membership: a period of probes and rumours, one rumour taken in
``test_register``   one commit of a job's record by a group of three, and what a synced vote costs
==================  ==================================================================================

Each measures what the running system calls, in the sizes in which it calls it, and looks at what came out:
a path that became fast by doing less is no gain.  `--benchmark-autosave` keeps a run's figures, and
`--benchmark-compare` holds the next one against them.
"""
