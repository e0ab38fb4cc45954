"""A deterministic world: virtual time, nodes and links that break by seed, a trace that repeats to the bit.

Theory
------
A pure machine (``receive``, ``tick``, ``next_deadline``; effects out) does not know whether its clock is
real. Here it is not: one heap of events orders the whole cluster, so an hour of failures runs in seconds and
a failure found once is found again from its seed. The approach is FoundationDB's and TigerBeetle's; swarm
configuration, where each seed turns on its own subset of the faults, is Groce et al., *Swarm Testing*, 2012.

=====================  ==================================================================================
``kinds``              the names of the faults
``chance``             child generators by (seed, name): a draw in one subsystem does not shift the others
``trace``              what happened: as a running hash always, as lines where somebody wants to read them
``network``            datagrams between addresses, and what becomes of them
``node``               one process on one machine: clock, disk, lives; the seam to the code under test
``world``              virtual time and the heap of events; performs effects in order, after the checks
``faults``             which faults a seed turns on and how hard; the nemesis that does and heals them
``scenario``           a seed from start to verdict: first faults hurt, then all must end well
``membership``         Swim in this world and its agreement after healing
``swim_process``       Swim as a process of a node; the real wire as the world's codec
``invariants``         what must hold for every view of the members at every time
``gossip``             what the papers claim of large clusters, measured; ``gossip_plot`` draws it
``fleet``              ten thousand Swims in one thread, for ``gossip``
``register``           registers in this world, with a founder and a surgeon; and ``register_clients``
``register_host``      a node's registers as a process; the real wire as their codec
``register_history``   whether what clients saw is linearizable, decided exactly
``planted_registers``  registers with one mistake each, to show that it is seen
``jobs``               leaders and workers in this world, real user code, and the answer byte for byte
``jobs_misfortunes``   which faults a seed may draw, what disks suffer, and how peers leave
``jobs_invariants``    what must hold of jobs at every step; ``jobs_ending``: and in the end
``jobs_codec``         the real wire as their codec
``jobs_process``       a peer that works for jobs as a process; what all peers share: ``jobs_swarm``
``jobs_attempts``      its attempts, their luck and their inputs; what they make: ``jobs_engine``
``jobs_transfers``     its data plane: outputs and parts on their way
``jobs_store``         what it holds of outputs, on a disk that forgets and rots
``jobs_surroundings``  honest stand-ins for membership and the register; inputs: ``jobs_workloads``
``planted_jobs``       leaders, workers, records and stores with one mistake each
``locks``              named locks, in a small world of their own; mistakes: ``planted_locks``
=====================  ==================================================================================

Another machine joins this world with a ``Process`` (how it boots, how its effects are performed) and a
``Scenario`` (its nodes, its invariants, its end); network, nodes, faults and trace are the same for all.

Rules that keep it deterministic: no builtin ``hash``, no iteration over sets, no clock but ``World.now``,
every random draw from a child generator of the seed.
"""
