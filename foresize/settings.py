"""Reads the configuration once, at the edge: foresize.yaml, then FORESIZE_* variables over it, then options.

A wrong key or value is reported with its place (file and line, or the variable's name) and what is accepted.
"""

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from pydantic import BaseModel, ValidationError

from pipelines.settings import Settings

if TYPE_CHECKING:
    import yaml

DEFAULT_FILE = Path("foresize.yaml")
PREFIX = "FORESIZE_"
OTHER_VARIABLES = frozenset({"FORESIZE_CONFIG", "FORESIZE_CACHE", "FORESIZE_PROMETHEUS_BIN"})
"""Variables of the same prefix that are not settings: the file to read, and where the tools keep binaries."""
SECRET = ("token", "password", "username", "headers")
"""Words in the names of keys whose values are never shown."""
GONE = {
    ("scaling", "selector"): "spec.targetRef",
    ("scaling", "min_replicas"): "spec.horizontal.minReplicas",
    ("scaling", "max_replicas"): "spec.horizontal.maxReplicas",
}
"""Keys of an earlier version, and the field of a PredictiveAutoscaler that says it now."""
Path_ = tuple[str, ...]
OPTION_BY_KEY: Mapping[Path_, str] = {("prometheus", "url"): "--prometheus", ("scaling", "metrics_port"): "--port"}
"""Options that are not called as the key that they set."""


class InvalidSettings(click.ClickException):
    """A configuration that cannot be used; says every problem with its place. Exit code 2."""

    exit_code = 2

    def __init__(self, problems: list[str]) -> None:
        super().__init__("the configuration cannot be used:\n  " + "\n  ".join(problems))


def load_settings(file: Path | None, environ: Mapping[str, str], overrides: Mapping[Path_, Any]) -> Settings:
    """The settings from a file (default: foresize.yaml if it is there), the environment and options, in that order.

    `overrides` maps a key's path, such as ("prometheus", "url"), to its value. Raises InvalidSettings.
    """
    if file is None and (named := environ.get("FORESIZE_CONFIG")):
        file = Path(named)
    if file is None and DEFAULT_FILE.exists():
        file = DEFAULT_FILE
    values: dict[str, Any] = {}
    places: dict[Path_, str] = {}
    if file is not None:
        values = _from_file(file, places)
    for name, text in sorted(environ.items()):
        if name.startswith(PREFIX) and name not in OTHER_VARIABLES and not name.startswith("FORESIZE_TEST_"):
            path = tuple(name.removeprefix(PREFIX).lower().split("__"))
            _put(values, path, _plain(text), places, f"variable {name}")
    for path, value in overrides.items():
        option = OPTION_BY_KEY.get(path, "--" + path[-1].replace("_", "-"))
        _put(values, path, value, places, f"option {option}")
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise InvalidSettings([_explained(dict(e), places) for e in error.errors()]) from None


def accepted_keys(path: Path_) -> list[str]:
    """The keys that a section of the settings knows; empty for something that is not a section."""
    model: type[BaseModel] = Settings
    for part in path:
        field = model.model_fields.get(part)
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            return []
        model = field.annotation
    return list(model.model_fields)


def _from_file(file: Path, places: dict[Path_, str]) -> dict[str, Any]:
    import yaml

    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSettings([f"{file}: cannot be read: {error}"]) from None
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InvalidSettings([_not_yaml(file, error)]) from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise InvalidSettings([f"{file}: holds a {type(content).__name__}; needed: keys such as 'prometheus:'"])
    _note_places(root, (), file, places)
    return content


def _not_yaml(file: Path, error: "yaml.YAMLError") -> str:
    """The line and what is wrong there, but not the line's text, as a password may stand in it."""
    place = getattr(error, "context_mark", None) or getattr(error, "problem_mark", None)
    problem = ", ".join(filter(None, (getattr(error, "context", None), getattr(error, "problem", None))))
    return f"{file}{f':{place.line + 1}' if place else ''}: is not YAML: {problem or type(error).__name__}"


def _note_places(node: "yaml.Node | None", path: Path_, file: Path, places: dict[Path_, str]) -> None:
    import yaml

    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*path, str(key.value))
            if inner in places:
                here = f"{file}:{key.start_mark.line + 1}"
                raise InvalidSettings([f"{here}: {'.'.join(inner)}: given twice, first at {places[inner]}"])
            places[inner] = f"{file}:{key.start_mark.line + 1}"
            _note_places(value, inner, file, places)


def _plain(text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text) if text[:1] in "[{" else text
    except yaml.YAMLError:
        return text


def _put(values: dict[str, Any], path: Path_, value: Any, places: dict[Path_, str], place: str) -> None:
    section = values
    for part in path[:-1]:
        inner = section.setdefault(part, {})
        if not isinstance(inner, dict):
            section[part] = inner = {}
        section = inner
    section[path[-1]] = value
    places[path] = place


def _key_with_one_underscore(name: str) -> Path_:
    """The key that a variable such as FORESIZE_PROMETHEUS_URL meant; empty where there is none."""
    sections = ((section, name.removeprefix(f"{section}_")) for section in accepted_keys(()))
    return next(((section, rest) for section, rest in sections if rest in accepted_keys((section,))), ())


def _explained(error: dict[str, Any], places: Mapping[Path_, str]) -> str:
    path = tuple(str(part) for part in error["loc"])
    known = [path[:n] for n in range(len(path), 0, -1) if path[:n] in places]
    place = places[known[0]] if known else "settings"
    name = ".".join(path) or "settings"
    if path in GONE:
        now = f"each PredictiveAutoscaler says it now ({GONE[path]})"
        return f"{place}: {name}: gone: {now}; see docs/controller.md, Upgrade"
    if error["type"] == "extra_forbidden":
        accepted = accepted_keys(path[:-1])
        near = get_close_matches(path[-1], accepted, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        if place.startswith("variable ") and (key := _key_with_one_underscore(path[-1])):
            hint = f"did you mean {PREFIX}{'__'.join(key).upper()}, with two underscores? "
        return f"{place}: {name}: unknown key; {hint}accepted: {', '.join(accepted)}"
    message = str(error["msg"]).removeprefix("Value error, ")
    given = error.get("input")
    # A section that is no section may hold anything, and an address a login.
    is_secret = any(word in name for word in SECRET) or bool(accepted_keys(path)) or "@" in str(given)
    shown = "" if isinstance(given, dict) or is_secret else f" (given: {given!r})"
    return f"{place}: {name}: {message[:1].lower() + message[1:]}{shown}"
