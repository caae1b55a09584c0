"""Where settings come from: a TOML file, variables, flags; which of them are known.

Always: what is gathered has a known key and remembers who said it, so that whoever refuses the
value can name the place; a later layer wins.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from peerd.config.parsers import PARSERS
from peerd.errors import UsageError

FILE_MAX_BYTES: Final = 256 * 1024
ENVIRONMENT_PREFIX: Final = "PEERD_"
FLAG, FILE, ENVIRONMENT = "flag", "file", "environment"


@dataclass(frozen=True)
class Given:
    """A raw value and where it was said."""

    value: object
    layer: str
    name: str

    def where(self, file: ConfigFile | None) -> str:
        if self.layer == FILE and file is not None:
            return f"{file.path}, line {file.line_of(self.name)}, {self.name}"
        if self.layer == FLAG:
            return "--" + self.name.replace("_", "-").replace(".", "-")
        return self.name


@dataclass(frozen=True)
class ConfigFile:
    """A TOML file, parsed, with its text so that errors can name lines."""

    path: str
    text: str
    table: dict[str, Any]

    def line_of(self, key: str) -> int:
        """The line where the statement that sets `key` ("zone", "origin.ca_file") begins.

        Exact for any TOML: a beginning of the file that parses ends between two statements, so
        the first one that knows the key ends with the statement that set it.
        """
        lines = self.text.splitlines(keepends=True)
        begins = 1
        for count in range(1, len(lines) + 1):
            try:
                table = tomllib.loads("".join(lines[:count]))
            except tomllib.TOMLDecodeError:
                continue
            if _has(table, key.split(".")):
                return begins
            begins = count + 1
        return begins


def gather(
    overrides: Mapping[str, object], source: ConfigFile | None, environment: Mapping[str, str]
) -> dict[str, Given]:
    """What was said, by key; UsageError for a key that does not exist."""
    given = _from_usual_variables(environment)
    given |= _from_file(source) if source else {}
    given |= _from_environment(environment)
    given |= _from_flags(overrides)
    return given


def read_file(path: str) -> ConfigFile:
    """UsageError where it cannot be read or is not TOML; the parser's words have the line."""
    try:
        with open(path, "rb") as stream:
            data = stream.read(FILE_MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"the config file {path} cannot be read: {error.strerror}") from error
    if len(data) > FILE_MAX_BYTES:
        raise UsageError(f"the config file {path} is larger than {FILE_MAX_BYTES} bytes")
    try:
        text = data.decode()
        return ConfigFile(path, text, tomllib.loads(text))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"the config file {path} is not TOML: {error}") from error
    except RecursionError as error:  # tomllib recurses into nested arrays.
        raise UsageError(f"the config file {path} is nested too deeply") from error


def _from_usual_variables(environment: Mapping[str, str]) -> dict[str, Given]:
    """What curl and OpenSSL honour. HTTP_PROXY in capitals could be a CGI client's header."""
    usual = {
        "origin.ca_file": ("SSL_CERT_FILE",),
        "origin.http_proxy": ("http_proxy",),
        "origin.https_proxy": ("https_proxy", "HTTPS_PROXY"),
        "origin.no_proxy": ("no_proxy", "NO_PROXY"),
    }
    found: dict[str, Given] = {}
    for key, names in usual.items():
        name = next((name for name in names if environment.get(name)), None)
        if name is not None:
            found[key] = Given(environment[name], ENVIRONMENT, name)
    return found


def _from_file(source: ConfigFile) -> dict[str, Given]:
    flat = {key: value for key, value in source.table.items() if key != "origin"}
    section = source.table.get("origin", {})
    if not isinstance(section, dict):
        raise UsageError(
            f"{source.path}, line {source.line_of('origin')}, origin is a section: write [origin]"
        )
    flat |= {f"origin.{key}": value for key, value in section.items()}
    for key in flat:
        if key not in PARSERS or key == "ephemeral":
            place = f"{source.path}, line {source.line_of(key)}"
            raise UsageError(f"{place}: there is no key {key!r}{_nearest(key, PARSERS)}")
    return {key: Given(value, FILE, key) for key, value in flat.items()}


def _from_environment(environment: Mapping[str, str]) -> dict[str, Given]:
    """PEERD_ZONE, PEERD_ORIGIN_CA_FILE, …

    A misspelt one is refused; one that resembles no key is somebody else's: Kubernetes sets
    PEERD_PORT and PEERD_SERVICE_HOST for a service that is called peerd.
    """
    keys = {ENVIRONMENT_PREFIX + key.upper().replace(".", "_"): key for key in PARSERS}
    found: dict[str, Given] = {}
    for name, value in environment.items():
        if not value:  # Shells and unit files unset a variable so.
            continue
        if name in keys:
            found[keys[name]] = Given(value, ENVIRONMENT, name)
        elif name.startswith(ENVIRONMENT_PREFIX) and name != "PEERD_CONFIG":
            nearest = _nearest(name, keys, cutoff=0.9)
            if nearest:
                raise UsageError(f"there is no variable {name}{nearest}")
    return found


def _from_flags(overrides: Mapping[str, object]) -> dict[str, Given]:
    for key in overrides:
        if key not in PARSERS:
            raise UsageError(f"there is no key {key!r}{_nearest(key, PARSERS)}")
    return {key: Given(value, FLAG, key) for key, value in overrides.items() if value is not None}


def _nearest(name: str, known: Mapping[str, object], cutoff: float = 0.6) -> str:
    found = difflib.get_close_matches(name, known, n=1, cutoff=cutoff)
    return f"; did you mean {found[0]}?" if found else ""


def _has(table: Any, path: list[str]) -> bool:
    for part in path:
        if not isinstance(table, dict) or part not in table:
            return False
        table = table[part]
    return True
