"""The comparison and the growth curves of `python -m tools.bench compare` and `grow`.

=================  ====================================================================================
``questions``      what is asked: seven questions, their inputs, and the job of ours that answers each
``sides``          who answers: one command line each, and whether its system stands before it begins
``compare``        rounds in turn, answers held against each other, what each run took
``strikes``        a SIGKILL in the middle
``environments``   the other engines' virtual environments
``engines/``       the questions in the forms that those engines' documentation teaches
``by_hand``        the join and PageRank, as a careful person writes them without any engine
``results``        medians, spread, JSON
``tables``         Markdown and text
``curves``         what grew with what, and what bounds it
``plots``          pictures
``grow``           how the cost grows with input, partitions, tasks, peers; on real processes
``grow_simulated`` the same for a thousand peers, in the simulator
``micro/``         the hot paths one by one, with pytest-benchmark
``RESULTS.md``     what was measured last, with ``plots/``
=================  ====================================================================================
"""
