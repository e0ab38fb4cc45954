"""The gossip experiment as four pictures; matplotlib is needed here and nowhere else."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from tools.simulation.gossip import Calm, Rough

__all__ = ["draw", "why_not"]


def why_not(path: Path) -> str | None:
    """Why a plot cannot be written to ``path``, in one line that says how to mend it; None where it can."""
    if importlib.util.find_spec("matplotlib") is None:
        return "--plot needs matplotlib: pip install 'ringreduce[bench]' (or leave it away)"
    if not path.resolve().parent.is_dir():
        return f"--plot {path}: the directory {path.resolve().parent} does not exist"
    return None


def draw(path: Path, calm: Sequence[Calm], rough: Sequence[Rough]) -> None:
    """Write spread, detection, load and false deaths as one picture."""
    import matplotlib as mpl

    mpl.use("Agg")  # no display is needed to write a file
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 2, figsize=(11, 8), constrained_layout=True)
    sizes = [each.nodes for each in calm]
    spread, detection, load, false = axes.flat
    spread.plot(sizes, [each.spread_rounds_last for each in calm], "o-", label="last node")
    spread.plot(sizes, [each.spread_rounds_median for each in calm], "o--", label="median node")
    spread.set(title="Rounds for one rumour to spread", ylabel="gossip rounds")
    detection.plot(sizes, [each.first_suspected_s for each in calm], "o-", label="first suspicion")
    detection.plot(sizes, [each.first_dead_s for each in calm], "o-", label="first verdict")
    detection.plot(sizes, [each.last_dead_s for each in calm], "o--", label="last verdict")
    detection.set(title="Detection of a killed node", ylabel="seconds")
    load.plot(sizes, [each.messages_per_node_s for each in calm], "o-", label="messages")
    load.set(title="Load of an idle node", ylabel="messages per second")
    load.set_ylim(0, 1.5 * max(each.messages_per_node_s for each in calm))
    for axis in (spread, detection, load):
        axis.set(xscale="log", xlabel="nodes")
        axis.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axis.minorticks_off()
        axis.legend()
    labels = [f"{each.nodes}\n{each.condition}" for each in rough if each.lifeguard]
    for offset, lifeguard in ((-0.2, True), (0.2, False)):
        bars = [each.deaths_of_healthy for each in rough if each.lifeguard is lifeguard]
        places = [place + offset for place in range(len(bars))]
        false.bar(places, bars, 0.4, label="Lifeguard" if lifeguard else "plain SWIM")
    false.set(title="Healthy nodes buried by mistake", ylabel="false deaths in a minute")
    false.set_xticks(range(len(labels)), labels, fontsize=7)
    false.legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
