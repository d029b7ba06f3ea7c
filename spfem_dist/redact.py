"""Secrets taken out of what is printed, logged or tracked: passwords in URIs, signed requests, the environment's keys."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

#: What stands in a secret's place.
HIDDEN = "***"

#: Variables whose values are secrets wherever they turn up; values shorter than this are not looked for: they would be parts of words.
_VARIABLE = re.compile(r"(?i)(secret|password|passwd|token|access_?key|api_?key|credential)")
_SHORTEST = 6

# A path takes one of the two slashes, and the password is still there.
_PASSWORD = re.compile(r"(?<=:/)(/?)[^\s/@:]*:\S*@")
# Some users' names have an at sign; behind one of a server's comes its port.
_MAIL_PASSWORD = re.compile(r"(?<=:/)(/?)[^\s/:]*@[^\s/:]*:(?!\d{1,5}(?:[/?#\s]|$))\S*@")
_HOST = r"(?:[\w.-]+|\[[0-9A-Fa-f:.]+\])(?::\w+)?"
_SPACED_MAIL = re.compile(rf"(?<=:/)(/?)[^\s/:]*@[^\s/:]*:(?!\d{{1,5}}(?:[/?#\s]|$))[^\n]*?@(?={_HOST}(?:[/?\s,]|$))")
_SPACED_PASSWORD = re.compile(rf"(?<=:/)(/?)[^\s/@:]*:[^\n]*?@(?={_HOST}(?:[/?\s,'\")]|$))")
# http://host:5000/page@2 has a port and no password; a database's URI may hold a password that begins like that.
_HTTP_PORT = re.compile(r"https?://?[^\s/@:]*:\d{1,5}(?![^\s/?#,;)\]'\"])")
# Of a bounded length: a page of letters without a colon would be read once for each of its letters.
_SCHEME = re.compile(r"[A-Za-z][\w+.-]{0,31}://?")
_OPEN = re.compile(r":/[^\s/@:]*:$|://[^\s/@:]*:$")
_USER = re.compile(r"(?<=:/)(/)[^\s/]*@")
# MLflow's key of a saved view is no secret: an address without it shows nothing.
_QUERY = re.compile(
    r"(?i)([?&;](?!viewStateShareKey=)(?:[\w-]*(?:password|passwd|secret|token|key|signature|credential)[\w-]*)=)[^&;\s'\"]+"
)
_NAMED = re.compile(r"(?i)((?:password|passwd|signature|credential|security-token|awsaccesskeyid)=)[^&\s'\"]+")
_SECRET_NAME = re.compile(r"(?i)(^|[._-])(password|passwd|secret|token|api_?key|access_?key|credentials?)($|[._-])")


def redact(text: object) -> str:
    """`text` with `***` for user and password of every URI, secrets in query strings, and the secrets of the environment.

    A password may hold slashes, colons, at signs and spaces. What cannot be told from a password is taken out too.
    """
    shown = str(text)
    for variable, value in os.environ.items():
        if len(value) >= _SHORTEST and value in shown and _VARIABLE.search(variable):
            shown = shown.replace(value, HIDDEN)
    shown = _uris(shown)
    return _NAMED.sub(rf"\1{HIDDEN}", _QUERY.sub(rf"\1{HIDDEN}", shown))


def redact_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of nested `settings` that may be logged: strings redacted, values of fields named like secrets replaced."""

    def clean(name: str, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: clean(key, inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [clean(name, inner) for inner in value]
        if _SECRET_NAME.search(name) and value not in (None, ""):
            return HIDDEN
        return redact(value) if isinstance(value, str) else value

    return {name: clean(name, value) for name, value in settings.items()}


def without_credentials(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Like `redact_settings`, and what is left can be used again: URIs without user and password, which the environment may hold."""

    def bare(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: bare(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [bare(inner) for inner in value]
        return value.replace(f"{HIDDEN}@", "") if isinstance(value, str) else value

    return bare(redact_settings(settings))


def _uris(text: str) -> str:
    """`text` with user and password of its URIs taken out."""
    starts = [match.start() for match in _SCHEME.finditer(text)]
    starts = [start for start in starts if not _OPEN.search(text, 0, start)]  # that one is a part of a password
    return "".join(_uri(text[a:b]) for a, b in zip([0, *starts], [*starts, len(text)], strict=True))


def _uri(text: str) -> str:
    """As `_uris`, for text that begins with its only URI."""
    if _HTTP_PORT.match(text):
        return text
    for pattern in (_PASSWORD, _MAIL_PASSWORD, _SPACED_PASSWORD, _SPACED_MAIL, _USER):
        text, found = pattern.subn(rf"\1{HIDDEN}@", text, count=1)
        if found:
            break
    return text
