"""Credentials in text that others wrote: replaced by `***` before it is shown, logged or stored.

Recognized by their form (addresses, signed links, connection strings, headers, tokens of well-known
services), and by their value where the environment holds them. In doubt too much is replaced: a
message that lacks a word does no harm.
"""

from __future__ import annotations

import functools
import logging
import os
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, quote_plus, unquote

MASK = "***"
# They could move the cursor.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
# Of an environment variable's value, so that a password `test` doesn't eat every `test`.
_NAMES_ADDRESS = re.compile(r"(?i)(ur[il]|endpoint|address)$")  # a variable
_SHORTEST = 6
_ADDRESS = re.compile(r"(?:\b[A-Za-z][A-Za-z0-9+.\-_]{0,40}:)?//")
_RUN, _USER = re.compile(r"\S+"), re.compile(r"[^:/?]*")
_ORACLE = re.compile(r"(?i)oracle(?:\+\w+)?://")
# A password with blanks in it. Digits after the colon are a port.
_BLANKS = re.compile(r"(//[^\s:@/]*:)(?!\d{1,5}(?:[/?#\s]|$))(?:(?!\w://)[^@\n]){1,60}@")
_WORDS = (
    r"pass(?:word|wd|phrase|code)?|pwd|secret|token|credentials?|signature|sig|hmac|jwt|sas|auth|authorization|odbc_connect"
    r"|(?:api|access|account|shared|private|secret|storage|master|license|subscription)[_\-.]?key(?:[_\-.]?id)?"
    r"|connection[_\-.]?string|shared[_\-.]?access[_\-.]?signature"
)
_NAME = rf"(?:[\w.\-]*[_\-.])?(?:[A-Za-z]*(?:password|passwd|secret|token|signature|AccessKey(?:Id)?)|{_WORDS})"
_QUOTED = r"\{(?:[^}]|\}\})*\}|'(?:[^'\\]|\\.|'')*'|\"(?:[^\"\\]|\\.)*\""
# Names that say password by themselves: what follows a colon is one. `token: x` may be a parser's
# message, and is masked where
# `x` looks like one: it has letters and digits, or is long.
_PLAIN_NAME = (
    r"(?:(?:[\w.\-]*[_\-.])?(?:[A-Za-z]*(?:password|passwd|passphrase|AccessKey(?:Id)?)|pwd|odbc_connect"
    r"|(?:api|access|account|shared|private|secret|storage|master|license|subscription)[_\-. ]?key(?:[_\-.]?id)?"
    r"|connection[_\-. ]?string)|[\w.\-]*[_\-](?:secret|token|signature|credentials?|auth))"
)
_DOUBTFUL_NAME = r"(?:[A-Za-z]*(?:[a-z]Token|[a-z]Secret)|token|secret|passcode|pass|credentials?|auth|jwt|sig|signature|sas|hmac)"
_START = r"(?<![\w.\-/\\?&])"
_WORD = r"[^\s]*[^\s,;)}\]\"']"  # without what ends a clause
_LOOKS_SECRET = r"(?=[^\s]*\d)(?=[^\s]*[A-Za-z])[^\s,;(){}\[\]]{6,}|[^\s,;(){}\[\]]{16,}"
# In a sentence about an option, and no value of it.
_SENTENCE = r"(?:is|are|was|were|to|on|or|and|in|of|the|for|if|with|must|can|may|has|instead|not|needs|option|from|as|by)\b"
_PATTERNS = [
    # Oracle's `user/password@host` where no `//` stands before it.
    (re.compile(r"(?i)(\bjdbc:oracle:\w+:)[^\s@/]{1,200}/\S{0,200}@"), rf"\1{MASK}@"),
    (
        re.compile(
            r"(?i)(\b(?:sqlplus|sqlldr|expdp|impdp|rman)\s+(?:-\S+\s+){0,9})[^\s@/]{1,200}/\S{0,200}@"
        ),
        rf"\1{MASK}@",
    ),
    # Whoever knows the address of a webhook or bot may use it.
    (re.compile(r"(?i)(\bhooks\.slack\.com/(?:\w+/)?)[^\s'\"<>)]+"), rf"\1{MASK}"),
    (
        re.compile(
            r"(?i)(\b(?:webhook\.office|outlook\.office(?:365)?)\.com/webhook\w*/)[^\s'\"<>)]+"
        ),
        rf"\1{MASK}",
    ),
    (re.compile(r"(?i)(\bdiscord(?:app)?\.com/api/(?:v\d+/)?webhooks/)[^\s'\"<>)]+"), rf"\1{MASK}"),
    (re.compile(r"(?i)(\bapi\.telegram\.org/bot)[^\s/'\"<>)]+"), rf"\1{MASK}"),
    # --password x, -u ann:x, as in a command that is quoted.
    (
        re.compile(rf"(?i)((?<!\S)--?{_NAME}[ \t]+)(?!-|{_SENTENCE})(?:{_QUOTED}|{_WORD})"),
        rf"\1{MASK}",
    ),
    (
        re.compile(r"((?<!\S)(?:-u|--user|--proxy-user)[ =][^\s:/]+:)(?!\d+(?:\s|$))\S+"),
        rf"\1{MASK}",
    ),
    # -u ann -p x; a port is a number.
    (re.compile(r"((?<!\S)(?:-u|--user)[ =]\S{1,200} -p ?)(?!\d+(?:\s|$))[^\s-]\S*"), rf"\1{MASK}"),
    # the password is x, where x looks like one.
    (re.compile(rf"(?i)({_START}{_PLAIN_NAME}[ \t]+is:?[ \t]+)(?:{_LOOKS_SECRET})"), rf"\1{MASK}"),
    (
        re.compile(
            rf"(?i)(\b(?:create|alter)\s+user\b[^;\n]{{0,200}}?\sidentified\s+by\s+)(?:{_QUOTED}|\S+)"
        ),
        rf"\1{MASK}",
    ),
    (re.compile(r"(?i)(\bpassword\s+)'(?:[^'\\]|\\.|'')*'"), rf"\1{MASK}"),
    (
        re.compile(r"(?i)(\b(?:set-)?cookie['\"]?\s*:\s*['\"]?)[^\s=;'\"]{1,200}=[^\n'\"]*"),
        rf"\1{MASK}",
    ),
    # password: x, X-Api-Key: x, without quotes.
    (
        re.compile(
            rf"(?i)({_START}{_PLAIN_NAME}[ \t]*:[ \t]*)(?!(?:true|false|null|none)\b)(?:{_QUOTED}|{_WORD})"
        ),
        rf"\1{MASK}",
    ),
    (re.compile(rf"(?i)({_START}{_DOUBTFUL_NAME}[ \t]*:[ \t]*)(?:{_LOOKS_SECRET})"), rf"\1{MASK}"),
    # passwd=a,b,c d: up to the next `name=`, or the end of the clause. (Not PGPASSWORD=x before a
    # command.)
    (
        re.compile(
            rf"({_START}(?:[\w.\-]*[_\-.])?(?:[a-z]*[Pp]ass(?:word|wd|phrase)|pwd)\s*=\s*)(?!['\"{{*])[^\s;&][^;&\n'\"]*?"
            r"(?=,?\s+[\w.\-]+\s*=|[;&\n'\"]|\.\s|$)"
        ),
        rf"\1{MASK}",
    ),
    # ?password=..., &X-Amz-Signature=...: up to the next parameter.
    (re.compile(rf"(?i)([?&](?:amp;)?{_NAME}=)[^\s&]*"), rf"\1{MASK}"),
    (re.compile(r"(?i)([?&]key=)[^\s&]{16,}"), rf"\1{MASK}"),
    # ...;PWD={a;b};..., host=db password='a b', PASSWORD="...".
    (re.compile(rf"(?i)(;\s*{_NAME}\s*=\s*)(?:{_QUOTED}|[^;\n]*(?=;)|\S+)"), rf"\1{MASK}"),
    (
        re.compile(
            rf"(?i)((?<![\w.\-]){_NAME}\s*=\s*)(?!\*\*\*(?:[\s.,;&)]|$))(?:{_QUOTED}|[^\s;&]+)"
        ),
        rf"\1{MASK}",
    ),
    # The same, percent-encoded in a parameter of an address.
    (
        re.compile(rf"(?i)((?:%3B|%3F|%26|\+|%20|(?<![\w.\-])){_NAME}(?:%20|\+)*%3D)[^\s&]+"),
        rf"\1{MASK}",
    ),
    # {"password": "..."} in JSON or as Python prints it.
    (re.compile(rf"(?i)((['\"]){_NAME}\2\s*:\s*)(?:{_QUOTED}|[^\s,}}\]]+)"), rf"\1{MASK}"),
    (
        re.compile(r"(?i)(\bauthorization['\"]?\s*[:=]\s*['\"]?(?:[a-z]+\s+)?)[^\s'\",;]+"),
        rf"\1{MASK}",
    ),
    (re.compile(r"(\b(?:Bearer|Basic|bearer|basic)\s+)(?=\S*[\d=])[\w+/=.~\-]{8,}"), rf"\1{MASK}"),
    (
        re.compile(
            r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
            re.DOTALL,
        ),
        MASK,
    ),
    (
        re.compile(
            r"\b(?:gh[pousr]_\w{20,}|github_pat_\w{20,}|glpat-[\w\-]{16,}|xox[abeprs]-[\w\-]{10,}|hf_[A-Za-z0-9]{20,}"
            r"|dapi[0-9a-f]{32}|sk-[\w\-]{20,}|pypi-[\w\-]{30,}|AIza[\w\-]{30,}|A[KS]IA[0-9A-Z]{16}"
            r"|eyJ[\w\-]{8,}\.[\w\-]{8,}\.[\w\-]*)"
        ),
        MASK,
    ),
]
_VARIABLE = re.compile(
    r"(?:PASSWORD|PASSWD|PASSPHRASE|(?:^|_)PASS|SECRET|TOKEN|CREDENTIALS?|SIGNATURE|CONNECTION_?STRING"
    r"|(?:API|ACCESS|ACCOUNT|STORAGE|PRIVATE|SECRET|LICENSE)_?KEY(?:_ID)?)$",
    re.IGNORECASE,
)
_HARMLESS = re.compile(r"true|false|none|null|yes|no|on|off|\d{1,7}", re.IGNORECASE)


def mask(text: str) -> str:
    """The text without credentials: `http://ann:pw@host` becomes `http://***@host`, `?sig=x`
    becomes `?sig=***`."""
    for secret in _secrets(tuple(os.environ.items())):
        if secret in text:
            edge = r"(?<!\w){}(?!\w)" if secret.isalnum() and len(secret) < 12 else "{}"
            text = re.sub(edge.format(re.escape(secret)), MASK, text)
    return _by_form(text)


def holds_secret(text: str) -> bool:
    """Whether an address or connection string holds a credential, so that it must not get into a
    file."""
    return _by_form(text) != text


def mask_tree(content: Any, key: str = "") -> Any:
    """A nested container with masked strings; those under a key that says `password` or the like
    altogether."""
    if isinstance(content, Mapping):
        return {name: mask_tree(value, str(name)) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [mask_tree(value, key) for value in content]
    if not isinstance(content, str):
        return content
    return MASK if content and re.fullmatch(_NAME, key, re.IGNORECASE) else mask(content)


def secret_keys(content: Any, prefix: str = "", key: str = "") -> list[str]:
    """Dotted keys of a nested container under which a credential is written out."""
    if isinstance(content, Mapping):
        inner = (
            (f"{prefix}.{name}" if prefix else str(name), str(name), value)
            for name, value in content.items()
        )
    elif isinstance(content, list | tuple):
        inner = ((f"{prefix}[{number}]", key, value) for number, value in enumerate(content))
    elif isinstance(content, str) and content and re.fullmatch(_NAME, key, re.IGNORECASE):
        return [prefix]
    else:
        # The text of a query is no address: `where token = 'a'` is a condition.
        address = isinstance(content, str) and (
            "//" in content or (";" in content and key != "query")
        )
        return [prefix] if address and holds_secret(content) else []
    return [found for path, name, value in inner for found in secret_keys(value, path, name)]


class MaskingFormatter(logging.Formatter):
    """Formats a log record, with its traceback, and masks the outcome. Control characters, which a
    name may hold, are written out."""

    def format(self, record: logging.LogRecord) -> str:
        text = mask(super().format(record))
        return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def without_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment for a process that needs no credential: variables that hold one are left
    out."""
    return {
        name: value
        for name, value in environment.items()
        if not _VARIABLE.search(name) and not holds_secret(value)
    }


def split_address(address: str) -> tuple[str, str | None, str | None]:
    """A web address without its user and password, and those, decoded; also where a password was
    written with `/` or `@`."""
    start = address.find("//") + 2
    if start == 1:
        return address, None, None
    oracle = _ORACLE.match(address)
    authority = _end(re.compile(r"[^/?#\s]*"), address, start)
    end = address.rfind("@", start, authority)
    if end < 0:
        end = address.rfind("@", start, _end(_RUN, f"{address}/", start))
        if end < 0 or not _has_user(address, start, end, oracle[0] if oracle else "http://"):
            return address, None, None
    user, colon, password = address[start:end].partition(":")
    if oracle and not colon:
        user, _, password = user.partition("/")
    return address[:start] + address[end + 1 :], unquote(user), unquote(password)


def _by_form(text: str) -> str:
    text = _BLANKS.sub(rf"\1{MASK}@", _without_users(text))
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def _without_users(text: str) -> str:
    return _RUN.sub(lambda run: _without_user(run[0]), text) if "@" in text else text


def _without_user(run: str) -> str:
    """A text without blanks. Its first address with a user holds all that follows, to the last
    `@`."""
    end = run.rfind("@")
    for found in _ADDRESS.finditer(run, 0, max(end, 0)):
        if _has_user(run, found.end(), end, found[0]):
            return f"{run[: found.end()]}{MASK}{run[end:]}"
    return run


def _end(pattern: re.Pattern[str], text: str, start: int) -> int:
    """Where a pattern that begins at `start` ends; `start` where it doesn't."""
    found = pattern.match(text, start)
    return found.end() if found else start


def _has_user(text: str, start: int, end: int, scheme: str) -> bool:
    """Whether `text[start:end]`, before an `@`, is a user with a password, or one that is secret.

    People write `/` and `@` into passwords as they are, so `end` is the last `@` before a blank.
    """
    stop = _end(_USER, text[:end], start)
    if _ORACLE.match(scheme) and stop > start and text[stop : stop + 1] == "/":
        return text[stop + 1 : stop + 2] not in ("/", "") and stop + 1 < end
    if stop == end:  # no password: harmless in an address of a database or of git
        return scheme.lower().startswith(("http", "ftp", "git+http"))
    return text[stop] == ":"  # else `@` in a path


@functools.lru_cache(maxsize=4)
def _secrets(environment: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
    """Secret values of environment variables, longest first, also as they are written in an
    address."""
    found: set[str] = set()
    for name, value in environment:
        password = split_address(value)[2] or ""
        if not password and not ("//" in value and _NAMES_ADDRESS.search(name)):
            password = value if _VARIABLE.search(name) and not os.path.exists(value) else ""
        if len(password) >= _SHORTEST and not _HARMLESS.fullmatch(password):
            found |= {
                password,
                unquote(password),
                quote(password, safe=""),
                quote(password),
                quote_plus(password),
            }
    return tuple(sorted(found, key=len, reverse=True))
