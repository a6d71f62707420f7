"""The picture of a results file."""

from __future__ import annotations

from pathlib import Path

BARS = ("scan", "limit", "conv", "mixer", "heads", "decode", "others", "drop_in", "drop_in_training", "order")


def plot(results: dict, file: Path) -> None:
    """Bars of the ratios, and time per token over length; `results` as written by __main__.py."""
    from matplotlib.figure import Figure

    rows = results["rows"]
    bars = [r for r in rows if r["suite"] in BARS]
    lines = [r for r in rows if r["suite"] == "length"]
    figure = Figure(figsize=(12, 0.36 * len(bars) + 2.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    right.set_visible(bool(lines))
    usual = results["machine"]["threads"]
    names = [f"{r['what']} / {r['against']}\n{r['case']}{_threads(r, usual)}" for r in bars]
    places = range(len(bars))[::-1]
    left.barh(places, [r["ratio"] for r in bars], color=["#4c78a8" if r["ratio"] >= 1.5 else "#9ecae9" for r in bars])
    left.set_yticks(places, names, fontsize=6.5)
    for place, r in zip(places, bars, strict=True):
        left.text(r["ratio"], place, f" {r['ratio']:.3g}×", va="center", fontsize=7)
    left.set_xscale("log")
    left.axvline(1, color="black", linewidth=0.8)
    left.set_xlabel("time ratio (measured in turn, one process)")
    for what in ("forward+backward", "forward"):
        mine = [r for r in lines if r["case"].startswith(f"{what},")]
        lengths = [int(r["case"].rsplit(" ", 1)[1]) for r in mine]
        right.plot(lengths, [r["microseconds_per_token"] for r in mine], marker="o", label=what)
    right.set_xscale("log", base=2)
    right.set_ylim(bottom=0)
    right.set_xlabel("tokens")
    right.set_ylabel("µs per token, 1536 channels, 16 states")
    right.legend(frameon=False)
    right.set_title("selective scan", fontsize=9)
    figure.suptitle(
        f"{results['machine']['processor']}, {results['machine']['threads']} threads, {results['date']}", fontsize=9
    )
    figure.savefig(file, dpi=130)


def _threads(result: dict, usual: int) -> str:
    threads = result.get("threads", usual)
    return "" if threads == usual else f", {threads} thread{'s'[: threads != 1]}"
