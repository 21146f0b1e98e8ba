"""A decision in words: what was observed, what is forecast, the arithmetic, what changed the number, the outcome."""

from collections.abc import Callable
from typing import Any

from autoscaler.cluster.capacity import Capacity
from autoscaler.cluster.reasons import ReasonCode, level_text, replicas_text
from autoscaler.controller.autoscalers import KIND

JsonObject = dict[str, Any]

GUARDRAILS = frozenset(
    code.value
    for code in (
        ReasonCode.WITHIN_TOLERANCE,
        ReasonCode.NO_SHRINK_UNSEEN,
        ReasonCode.SCALE_DOWN_STABILIZED,
        ReasonCode.SCALE_UP_STABILIZED,
        ReasonCode.SCALE_UP_LIMIT,
        ReasonCode.SCALE_DOWN_LIMIT,
        ReasonCode.TOO_MANY_REPLICAS,
        ReasonCode.TOO_FEW_REPLICAS,
        ReasonCode.SCALING_DISABLED,
        ReasonCode.ROLLOUT,
        ReasonCode.DISRUPTION_BUDGET,
        ReasonCode.BREAK_EVEN,
        ReasonCode.SURVIVES_LOSS,
        ReasonCode.DOMAINS_UNKNOWN,
        ReasonCode.ERROR_BUDGET_BURNS,
        ReasonCode.PAUSED,
        ReasonCode.CONFLICT,
        ReasonCode.CHANGED_BY_OTHERS,
    )
)
"""Reasons that say what kept the number from being the plain arithmetic."""
RESIZE_WORDS = {
    "upToDate": "up to date",
    "waiting": "to be resized",
    "inProgress": "being resized",
    "deferred": "without room for it now",
    "infeasible": "that their node can never resize",
    "leftAlone": "left alone",
}
VERDICTS = {"scale_up": "raise", "scale_down": "lower", "hold": "hold at"}
OUTCOMES = {
    "applied": "carried out",
    "dry_run": "nothing is written",
    "observed": "nothing is written",
    "skipped": "not carried out",
    "failed": "could not be carried out",
    "none": "nothing to do",
}


def explanation(record: JsonObject) -> str:
    """The decision of `DecisionRecord.as_json`, for a terminal."""
    replicas, unit = record["replicas"], record.get("unit", "")
    current, desired = replicas["current"], replicas["desired"]
    change = f"{current} -> {desired}" if record["decision"] != "hold" else str(current)
    lines = [
        f"{record['workload']}: {VERDICTS[record['decision']]} {change} {'replica' if change == '1' else 'replicas'}",
        "",
        *([f"  query        {query}"] if (query := record.get("query")) else []),
        f"  observed     {_observed(record, unit)}",
        f"  forecast     {_forecast(record, unit)}",
        *([f"  because      {because}"] if (because := record["forecast"].get("because")) else []),
        f"  model        {_model(record)}",
        f"  capacity     {_capacity(record, unit)}",
        f"  arithmetic   {_arithmetic(record)}",
    ]
    changed = [reason for reason in record["reasons"] if reason["code"] in GUARDRAILS]
    lines.extend(
        f"  {'guardrails' if first else '          '}   {reason['code']}: {reason['message']}"
        for first, reason in zip([True] + [False] * len(changed), changed, strict=False)
    )
    if not changed:
        lines.append("  guardrails   none changed the number")
    if "min_replicas" in record:
        event = f", the minimum for {record['event']}" if record["event"] else ""
        event = f", the minimum by {record['min_source']}" if record.get("min_source") else event
        source = f", the maximum of {record['max_source']}" if record["max_source"] else ""
        lines.append(
            f"  bounds       {record['min_replicas']} to {replicas_text(record['max_replicas'])}{event}{source}"
        )
        lead = record["lead_time"]
        lines.append(f"  lead time    {span(lead['seconds'])} ({lead['source']})")
        lines.append(f"  level        {record['level']:g} ({record['level_source']})")
    if survival := record.get("survival"):
        lines.append(f"  survival     {'yes' if survival['survives'] else 'no'}: {survival['message']}")
    lines += _budget(record.get("error_budget"))
    outcome = OUTCOMES[record["outcome"]] + (f": {record['detail']}" if record["detail"] else "")
    reason = record["reason"]
    lines += [
        f"  reason       {reason['code']}: {reason['message']}",
        f"  outcome      {outcome}",
        f"  decided      {record['decided_at']} with {replicas['ready']} of {replicas_text(replicas['target'])} ready",
        f"  asked by     {KIND} {record['autoscaler']}, mode {record['mode']}, actuator {record['actuator']}",
    ]
    return "\n".join([*lines, *_requests(record.get("vertical"))])


def _budget(budget: JsonObject | None) -> list[str]:
    """How the error budget stands; nothing where it is not counted."""
    if budget is None:
        return []
    rate = f"violated {budget['burnRate']:.3g} times as often as allowed lately"
    return [f"  budget       {budget['remaining']:.1%} left, {rate}", f"               {budget['reason']}"]


def _requests(vertical: JsonObject | None) -> list[str]:
    """What containers should request, and how far their pods have come."""
    if vertical is None:
        return []
    lines = [f"  requests     {vertical['mode']}" + (f": {vertical['hold']['message']}" if vertical["hold"] else "")]
    for each in (vertical.get("recommendation") or {}).get("containers") or ():
        bounds = [
            f"{name} {target} ({each['lowerBound'][name]} to {each['upperBound'][name]})"
            for name, target in (each.get("target") or {}).items()
        ]
        lines.append(f"    {each['name']:<10} {', '.join(bounds) or 'none'}: {each['reason']}")
    resize = vertical.get("resize")
    if resize is not None:
        counts = ", ".join(f"{resize[name]} {words}" for name, words in RESIZE_WORDS.items() if resize[name])
        said = f"; {resize['message']}" if "message" in resize else ""
        lines.append(f"    pods       {counts or 'none to resize'}{said}")
    return lines


def amount(value: float, unit: str) -> str:
    """A value with its unit, short enough to read."""
    if unit == "bytes":
        for prefix, size in (("Ti", 2**40), ("Gi", 2**30), ("Mi", 2**20), ("Ki", 2**10)):
            if value >= size:
                return f"{value / size:.4g} {prefix}B"
    return f"{value:.4g} {unit}".strip()


def span(seconds: float) -> str:
    """A span of time, in one unit."""
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.0f} s"


def _either(part: JsonObject, words: Callable[[JsonObject], str]) -> str:
    hold = part.get("hold")
    return f"none: {hold['message']}" if hold else words(part)


def _observed(record: JsonObject, unit: str) -> str:
    return _either(record["observed"], lambda o: f"{amount(o['value'], unit)}, {span(o['age_seconds'])} ago")


def _forecast(record: JsonObject, unit: str) -> str:
    return _either(
        record["forecast"],
        lambda f: (
            f"{amount(f['value'], unit)}: peak from {f['from']} to {f['until']} "
            f"at quantile level {level_text(f['level'])}, by {f['forecaster']}"
        ),
    )


def _model(record: JsonObject) -> str:
    model = record["model"]
    words = str(model["description"])
    if model["version"]:
        words += f", confirmed by the registry {span(model['age_seconds'])} ago, trained on data until "
        words += str(model["trained_until"])
    return words + (f"; {model['problem']}" if model["problem"] else "")


def _capacity(record: JsonObject, unit: str) -> str:
    part = record.get("capacity_per_replica")
    if part is None:
        return "not worked out"

    def told(c: JsonObject) -> str:
        among = f" with {replicas_text(c['replicas'])}" if "replicas" in c else ""
        return f"{amount(c['value'], unit)} per replica{among} ({c['source']})"

    return _either(part, told)


def _arithmetic(record: JsonObject) -> str:
    capacity = record.get("capacity_per_replica") or {}
    demands = [
        (name, record[part]["value"])
        for part, name in (("forecast", "forecast"), ("observed", "observed"))
        if "value" in record[part]
    ]
    if "value" not in capacity or not demands:
        return "none: without demand and capacity the number stays"
    name, demand = max(demands, key=lambda pair: pair[1])
    if "curve" in capacity:
        curve = Capacity(capacity["beyond"], tuple(capacity["curve"]))
        needed = curve.replicas_for(demand)
        fewer = f"{needed - 1} carry {curve.demand_at(needed - 1):.4g}, " if needed > 1 else ""
        return f"{name} {demand:.4g} needs {needed}: {fewer}{needed} carry {curve.demand_at(needed):.4g}"
    per_replica = capacity["value"]
    return f"ceil({name} {demand:.4g} / {per_replica:.4g}) = {Capacity(per_replica).replicas_for(demand)}"
