"""The stored results of the recipe beside ours, as a table; makes no forecasts."""

from typing import Any

from benchmarks.accuracy import geometric_mean, shares

NAME = "recipe"
RECIPE = "recipe"


def beside(ours: dict[str, Any], recipes: dict[str, Any]) -> str:
    """Each task that both were measured on, ours first; below 1 we are ahead."""
    rows, ratios = [], []
    for task, recipe in recipes.items():
        if task not in ours:
            continue
        mine, theirs = ours[task]["methods"]["foresize"], recipe["methods"][RECIPE]
        ratios.append(mine["crps_ratio"] / theirs["crps_ratio"])
        rows.append(
            f"| {task}{' †' if ours[task]['tuned_on'] else ''} | {mine['crps_ratio']:.3f} | {theirs['crps_ratio']:.3f} "
            f"| {ratios[-1]:.3f} | {mine['equal_weight_ratio']:.3f} | {theirs['equal_weight_ratio']:.3f} "
            f"| {recipe['methods']['mixture']['crps_ratio']:.3f} | {shares(theirs['coverage'])} "
            f"| {theirs['pinball_ratio'][-1]:.2f} |"
        )
    if not rows:
        return "Not measured yet.\n"
    heads = (
        "| task | CRPS | the recipe's | ours ÷ the recipe's | equal weight | the recipe's | its mixture's CRPS "
        "| its coverage at .5 / .9 / .95 / .99 | its pinball at .99 |\n|---|---|---|---|---|---|---|---|---|\n"
    )
    return heads + "\n".join(rows) + f"\n\nOurs ÷ the recipe's, geometric mean: {geometric_mean(ratios):.3f}.\n"
