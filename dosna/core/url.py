"""URLs of connections and datasets, as text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from dosna.errors import ConfigurationError

__all__ = ["PASSWORD", "Url", "without_password"]


_MOST = 1 << 16
"""Characters above which a URL is refused."""

_SHOWN = 200

_IN_PATH = "/:@!$'()*,;=+~"

_IN_VALUE = "/:@!$'()*,;+~?"

PASSWORD = re.compile(
    # Up to the last '@': a password should not contain others, but may.
    r"(?<=://)([^/@:?#\s]*:)[^\s]*(?=@)|([?&](?:(?:ssl)?password|token)=)[^&#\s]*",
    re.IGNORECASE,
)


_TOKEN = re.compile(
    r"(https?:[^\s?#]*?/)(?:@|%40)[\w.~-]{16,256}(?![^/?#\s'\"),;:])", re.ASCII | re.I
)
"""Pattern of an address of a server of dosna that has the token in its path."""


def without_password(text: str) -> str:
    """Return a URL, or a text with URLs, with stars in place of passwords and tokens."""
    text = _TOKEN.sub(r"\1***", text)
    return PASSWORD.sub(lambda found: f"{found[1] or found[2]}***", text)


@dataclass(frozen=True)
class Url:
    """The parts of a URL; ``str`` puts them together again.

    Parameters
    ----------
    backend : str
        The name or alias of a backend.
    path : str
        The part after the colon and before the options, without escapes.
    options : mapping of str to str
        The options of the backend's connection, as text.
    """

    backend: str
    path: str = ""
    options: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Url:
        """Split a URL into its parts, without opening anything.

        Raises
        ------
        ConfigurationError
            The text has another form, or an option is given twice.
        """
        from urllib.parse import unquote

        if not isinstance(text, str):
            raise ConfigurationError(f"a URL is a text, not {type(text).__name__}")
        if len(text) > _MOST:
            raise ConfigurationError(
                f"{text[:_SHOWN]!r}… has {len(text)} characters, and a URL at most {_MOST}"
            )
        try:
            text.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as error:
            raise ConfigurationError(
                f"a URL has the character {text[error.start]!r}, which UTF-8 does not have"
            ) from None
        match = re.fullmatch(r"([A-Za-z][\w.+-]*):([^?]*)(?:\?(.*))?", text, re.S)
        if match is None:
            raise ConfigurationError(
                f"{without_password(text)!r} is not the URL of a connection or a dataset: write "
                "BACKEND:PATH, like hdf5:/data/scans/tomo or "
                "s3://bucket/scans/tomo?endpoint_url=https://…"
            )
        options: dict[str, str] = {}
        for part in filter(None, (match[3] or "").split("&")):
            name, equals, value = part.partition("=")
            name = unquote(name)
            if not equals:
                raise ConfigurationError(
                    f"an option of a URL has the form key=value, not {part!r}"
                )
            if name in options:
                raise ConfigurationError(
                    f"option {name!r} is given twice in {without_password(text)!r}"
                )
            options[name] = unquote(value, errors="surrogateescape")
        return cls(match[1], unquote(match[2], errors="surrogateescape"), options)

    def __repr__(self) -> str:
        return f"<Url {without_password(str(self))}>"

    def __str__(self) -> str:
        from urllib.parse import quote

        text = f"{self.backend}:{quote(self.path, _IN_PATH, errors='surrogateescape')}"
        options = [
            f"{quote(name, '')}={quote(value, _IN_VALUE, errors='surrogateescape')}"
            for name, value in self.options.items()
        ]
        return text + ("?" + "&".join(options) if options else "")
