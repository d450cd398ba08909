"""The plot of a result, if matplotlib is there: it is in the extra `bench` alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from figures import ROWS, flights
from report import where

_PANELS = (
    "CPU a poll",
    "RSS a run in flight",
    "CPU to create N, first polls included",
    "CPU to cancel and release N, without polls",
    "create N: until all show their run",
    "delete N running: until all are cancelled",
    "restart: until all are polled",
)
_COLOURS = {"ours": "tab:blue", "baseline": "tab:orange"}


def draw(results: dict[str, Any], file: Path) -> bool:
    """Write the plot to `file`; False where matplotlib is missing."""
    try:
        import matplotlib as mpl
    except ImportError:
        return False
    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "openairun"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 4, figsize=(20, 9))
    rows = {row.title: row for row in ROWS}
    sizes = sorted({flight["n"] for flight in results["flights"]})
    for panel, title in zip(axes.flat, _PANELS, strict=False):
        for name, colour in _COLOURS.items():
            points = [(n, rows[title].figure(each)) for n, each in flights(results, name).items()]
            known = [(n, value) for n, value in points if value is not None]
            panel.plot([n for n, _ in known], [value for _, value in known], "o-", color=colour, label=name)
        panel.set(title=f"{title}: {rows[title].unit}", xlabel="N", xscale="log", ylim=(0, None))
        panel.set_xticks(sizes, labels=[f"{size:,}" for size in sizes], minor=False)
        panel.minorticks_off()
        panel.legend()
    _delays(axes.flat[len(_PANELS)], results)
    figure.suptitle(f"{where(results)}, {results['cores']} cores, commit {results['commit'][:7]}")
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})
    pyplot.close(figure)
    return True


def _delays(panel: Any, results: dict[str, Any]) -> None:
    """The share of runs whose end was seen within so many intervals."""
    for name, colour in _COLOURS.items():
        for n, flight in flights(results, name).items():
            delays = flight.get("finish", {}).get("delays") or []
            shares = [(number + 1) / len(delays) for number in range(len(delays))]
            width = 0.6 + 0.5 * list(flights(results, name)).index(n)
            waits = [each / flight["interval"] for each in delays]
            panel.plot(waits, shares, color=colour, lw=width, label=f"{name}, N={n}")
    panel.axvline(1, color="grey", lw=0.5)
    panel.set(title="delay until the status says finished: share of runs", xlabel="polling intervals", xlim=(0, 3))
    panel.legend()
