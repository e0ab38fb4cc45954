"""A deterministic world: virtual time, a network and nodes that break by seed, and a trace that repeats
to the bit.

Theory ------ A pure machine (``receive``, ``tick``, ``next_deadline``; effects out) does not know whether
its clock is real. Here it is not: one heap of events orders the whole cluster, so an hour of failures
runs in a second and a failure found once is found again from its seed. The approach is FoundationDB's and
TigerBeetle's; swarm configuration, in which each seed turns on its own subset of the faults, is Groce et
al., *Swarm Testing*, 2012.

===============
=============================================================================================== ``chance``
child generators by (seed, name): one more draw in one subsystem does not shift the others ``trace``
what happened, as a running hash always and as lines where somebody wants to read them ``network``
datagrams between addresses: drop, duplicate, reorder, delay, clog, cut, partition, late replay ``node``
one process on one machine: clock, disk, crash, restart, pause; the seam to the code under test ``world``
virtual time and the heap of events; performs effects in order; calls the checks after each step
``faults``       which faults a seed turns on and how hard; the nemesis that does them and then heals
everything ``scenario``     a seed from start to verdict: a phase in which faults hurt, a phase in which
all must end well ``membership``   Swim in this world, its invariants and its agreement after healing
``gossip``       ten thousand Swims without faults of order, measured against the papers' claims
===============
===============================================================================================

Rules that keep it deterministic: no builtin ``hash``, no iteration over sets, no clock but ``World.now``,
every random draw from a child generator of the seed.
"""
