"""Holds a query that somebody else wrote to the data of one namespace.

The query is taken apart by a parser, every selector in it gets the matchers of its namespace, and what is sent is
printed from the result, never the text that was given. The printed text is parsed once more and each of its selectors
looked at, by a walk that knows every kind of expression and refuses what it does not know. Functions such as
`label_replace` work on what selectors found; they cannot widen it. What cannot be held is refused.
"""

import re
from collections.abc import Iterator, Mapping

import promql_parser as promql
from promql_parser import Expr, Matcher, MatchOp, VectorSelector

from predictor.errors import QueryRefused

LONGEST_QUERY = 2_000
"""Characters. The parser takes longer than linear time."""
DEEPEST_QUERY = 40
"""Levels of nesting; each operator, function and parenthesis is one."""
UNHELD_FUNCTIONS = frozenset({"info"})
"""Functions that read series beside those that their arguments select."""
_PLAIN_NAME = re.compile(r"[A-Za-z_:][A-Za-z0-9_:]*")


def held_to_namespace(query: str, namespace: str, label: str, matchers: Mapping[str, str] | None = None) -> str:
    """The query with `label="namespace"`, and the matchers that every series must meet, in each of its selectors.

    Raises QueryRefused for what the parser does not know, what names another namespace and what cannot be held.
    """
    if not namespace:
        raise QueryRefused("no namespace to hold the query to: an empty one would select series without a namespace")
    required = {**(matchers or {}), label: namespace}
    given = _parsed(query)
    for selector in _selectors(given):
        _check_selector(selector, required)
    held = promql.transform(given, post_visit=lambda node: _with_matchers(node, required)).prettify()
    for selector in _selectors(_parsed(held, is_ours=True)):
        if not _carries(selector, required):
            raise QueryRefused(f"{selector.prettify()} could not be held to {_shown(required)}")
    return held


def _parsed(query: str, *, is_ours: bool = False) -> Expr:
    if len(query) > LONGEST_QUERY and not is_ours:
        raise QueryRefused(f"the query has {len(query)} characters; at most {LONGEST_QUERY} are taken")
    try:
        return promql.parse(query)
    except ValueError as error:
        raise QueryRefused(f"not PromQL as foresize knows it: {error}") from error


def _selectors(expression: Expr, depth: int = 0) -> Iterator[VectorSelector]:
    """Every selector of an expression, wherever it stands. Refuses kinds of expression that are not known here."""
    if depth > DEEPEST_QUERY:
        raise QueryRefused(f"the query is nested deeper than {DEEPEST_QUERY} levels")
    parts: list[Expr] = []
    match expression:
        case VectorSelector():
            yield expression
        case promql.MatrixSelector():
            parts = [expression.vector_selector]
        case promql.Call():
            if expression.func.name in UNHELD_FUNCTIONS:
                raise QueryRefused(f"{expression.func.name}() reads series that no selector of the query names")
            parts = list(expression.args)
        case promql.AggregateExpr():
            parts = [expression.expr, *([] if expression.param is None else [expression.param])]
        case promql.BinaryExpr():
            parts = [expression.lhs, expression.rhs]
        case promql.UnaryExpr() | promql.ParenExpr() | promql.SubqueryExpr():
            parts = [expression.expr]
        case promql.NumberLiteral() | promql.StringLiteral():
            pass
        case _:
            raise QueryRefused(f"{type(expression).__name__} is not known, so it cannot be held to a namespace")
    for part in parts:
        yield from _selectors(part, depth + 1)


def _check_selector(selector: VectorSelector, required: Mapping[str, str]) -> None:
    """Refuses alternatives between matchers, which an added matcher does not reach, and what would match nothing."""
    if selector.matchers.or_matchers:
        raise QueryRefused(f"{selector.prettify()} has matchers joined by `or`, which only VictoriaMetrics knows")
    for matcher in selector.matchers.matchers:
        own = required.get(matcher.name)
        if own is None:
            continue
        is_other = matcher.op == MatchOp.Equal and matcher.value != own
        is_without = matcher.op == MatchOp.NotEqual and matcher.value == own
        if is_other or is_without:
            raise QueryRefused(f'{selector.prettify()} reads what is not {matcher.name}="{own}"; only that is allowed')


def _with_matchers(node: Expr, required: Mapping[str, str]) -> Expr | None:
    """A selector with the matchers in front of its own; None leaves other nodes as they are."""
    if not isinstance(node, VectorSelector):
        return None
    text = node.prettify()
    name = "" if text.startswith("{") else _start(text)
    rest = text[len(name) :]
    added = _shown(required)
    held = f"{name}{{{added},{rest[1:]}" if rest.startswith("{") else f"{name}{{{added}}}{rest}"
    return _parsed(held, is_ours=True)


def _start(text: str) -> str:
    plain = _PLAIN_NAME.match(text)
    if plain is None:
        raise QueryRefused(f"{text} cannot be held to a namespace: its name is not plain")
    return plain.group()


def _carries(selector: VectorSelector, required: Mapping[str, str]) -> bool:
    equal = {_pair(matcher) for matcher in selector.matchers.matchers if matcher.op == MatchOp.Equal}
    return not selector.matchers.or_matchers and equal >= set(required.items())


def _pair(matcher: Matcher) -> tuple[str, str]:
    return matcher.name, matcher.value


def _shown(required: Mapping[str, str]) -> str:
    return ",".join(f"{name}={quoted(value)}" for name, value in sorted(required.items()))


def quoted(value: str) -> str:
    """A string of PromQL that stands for the value, whatever characters it holds."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
