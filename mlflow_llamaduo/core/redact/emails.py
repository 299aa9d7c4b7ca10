"""E-mail addresses, of every domain: `example.com` too, for a trace may hold a real person's name before it."""

import re
from collections.abc import Iterator

from mlflow_llamaduo.core.redact.finding import Finding

# Each run of characters is read once, from its start: a megabyte of `a.a.a.` takes a megabyte of steps.
ADDRESS = re.compile(
    r"(?<![\w.%+'-])([\w.%+'-]++)@(?=[^\W_])"
    r"((?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,8}(?:xn--[a-z0-9-]{2,59}|[^\W\d_]{2,24}))(?![\w(@])(?!-\w)",
    re.IGNORECASE,
)
IN_URL = re.compile(r"://[^\s/@]*:$")  # `https://user:password@host.org`: the user and the host of a URL
# `icon@2x.png` is a file; none of these is a top-level domain.
FILES = ("png", "jpg", "jpeg", "gif", "svg", "webp", "js", "css", "json", "html", "xml", "pdf", "txt")


def emails(text: str) -> Iterator[Finding]:
    """Addresses; not users of URLs (`git@host:`, `https://user:password@host`), and not `user@localhost`."""
    if "@" not in text:
        return
    for match in ADDRESS.finditer(text):
        local, domain = match.groups()
        name = local.lstrip(".%+'-")
        remote = name == "git" and (text.startswith(":", match.end()) or text.endswith("://", 0, match.start()))
        remote = remote or IN_URL.search(text, max(0, match.start() - 70), match.start()) is not None
        if name and not remote and domain.rpartition(".")[2].lower() not in FILES:
            yield Finding(match.end() - len(domain) - 1 - len(name), match.end(), f"{name}@{domain}".casefold())
