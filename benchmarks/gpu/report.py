"""What the findings come to: whether everything was right, how far each time is from what the card can do, and the table."""

from __future__ import annotations

from collections.abc import Mapping

KERNEL = "kernel"
UNITS = {"bytes": "bytes_per_second", "exponentials": "exponentials_per_second", "flops": "flops_per_second"}


def complete(results: dict) -> None:
    """Adds each row's physical limit and the verdict, in place.

    `correct` is False where a check found something wrong, or a step of checks did not come to its end.
    """
    for row in results["rows"]:
        row |= limit(row, results["ceilings"])
    wrong = [check for check in results["checks"] if check["ok"] is False]
    unfinished = [s["step"] for s in results["steps"] if s["step"].startswith("check") and s["outcome"] != "done"]
    results["wrong"] = [f"{check['check']}: {check['error']}" for check in wrong] + [
        f"{step}: not finished" for step in unfinished
    ]
    results["correct"] = not results["wrong"] and any(check["ok"] for check in results["checks"])


def limit(row: Mapping, ceilings: Mapping[str, float]) -> dict:
    """The milliseconds that the card's slowest unit needs for the work, which unit that is, and the time as a multiple."""
    needs = {
        unit: 1e3 * row[unit] / ceilings[rate] for unit, rate in UNITS.items() if row.get(unit) and ceilings.get(rate)
    }
    if not needs:
        return {}
    unit = max(needs, key=needs.__getitem__)
    found = {"limit_ms": round(needs[unit], 4), "limited_by": unit}
    if row.get("ms") and row["what"] == KERNEL:
        found["times_limit"] = round(row["ms"] / needs[unit], 2)
    return found


def table(results: Mapping) -> str:
    """Everything in lines: ceilings, checks that failed, times."""
    lines = ["", f"{results['machine'].get('card', 'no card')}, {results['date']}"]
    lines += [f"  {name.replace('_', ' ')}: {value:.4g}" for name, value in results["ceilings"].items()]
    right = sum(check["ok"] is True for check in results["checks"])
    lines += [
        f"  checks: {right} right, {len(results['wrong'])} wrong",
        *(f"    WRONG {line}" for line in results["wrong"]),
    ]
    case = None
    for row in results["rows"]:
        if row["case"] != case:
            case = row["case"]
            lines.append(case)
        lines.append(f"  {row['what']:28s} {_said(row)}")
    return "\n".join(lines)


def _said(row: Mapping) -> str:
    if "error" in row:
        return f"-- {row['error']}"
    if "second_call_s" in row:
        return f"{row['first_call_s']:.2f} s, then {1e3 * row['second_call_s']:.1f} ms"
    parts = [f"{row['ms']:10.3f} ms ± {100 * row['spread']:3.0f} %"]
    if "host_ms" in row:
        parts.append(f"launched in {row['host_ms']:8.3f} ms")
    if row.get("megabytes") is not None:
        parts.append(f"{row['megabytes']:9.1f} MiB")
    if "times_limit" in row:
        parts.append(f"{row['times_limit']:6.2f} × limit by {row['limited_by']}")
    if "times_kernel" in row:
        parts.append(f"{row['times_kernel']:8.2f} × kernel")
    return "  ".join(parts)
