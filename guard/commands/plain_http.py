"""One address asked over HTTP, for commands that carry a token: no proxy of the environment, no redirect.

A token goes where it was told to and nowhere else. With `http_proxy` set, as it is on many desks, a proxy would be
asked for this machine's own loopback address and be shown the token; after a redirect the next host would.
"""

from __future__ import annotations

import urllib.request
from http.client import HTTPException
from typing import Any
from urllib.error import URLError


def ask_plainly(request: urllib.request.Request, timeout_s: float, most_bytes: int) -> tuple[str, bytes]:
    """Content type and body, its first `most_bytes`.

    Raises:
        urllib.error.HTTPError: a status that is no success, a redirect among them.
        OSError: nobody answers, or not over HTTP.
    """
    opener = urllib.request.build_opener(_NoRedirects, urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=timeout_s) as answer:
            return answer.headers.get_content_type(), answer.read(most_bytes)
    except (HTTPException, ValueError) as error:  # another protocol, an answer cut short, a name that cannot be asked
        said = " ".join(str(error).split())[:100] or type(error).__name__
        raise URLError(f"no answer over HTTP ({said})") from error


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any) -> None:
        return None
