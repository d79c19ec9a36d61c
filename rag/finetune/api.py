"""The OpenAI API through its official client, with the patience of a person: Retry-After, back-off, one-line errors.

The client's own retries are off. It would send a request that creates something again after a broken connection, and
nobody could tell whether the first one had been obeyed: a second training is a second bill. Reads are simply repeated
here; what creates something looks first whether it is there already (`rag.finetune.jobs`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from rag.bearer import clean_key, plain_url
from slo.errors import ConfigError, UpstreamError

T = TypeVar("T")

INSTALL_LINE = "pip install 'sft-guard[ft]'"
BASE_URL = "https://api.openai.com/v1"


class Unanswered(UpstreamError):
    """Nobody knows whether the request was obeyed: the connection broke, or a 5xx came back."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to go on. backoff_s doubles up to backoff_max_s; give_up_s: without any answer, then it is an error."""

    backoff_s: float = 1.0
    backoff_max_s: float = 60.0
    give_up_s: float = 1800.0


def make_client(base_url: str, api_key: str, *, timeout_s: float = 60.0) -> Any:
    """A client of the API.

    Raises:
        ConfigError: no key, or the `ft` extra is missing.
    """
    plain_url(base_url, "--base-url")
    api_key = clean_key(api_key)
    if not api_key:
        raise ConfigError("API key", "", "set the environment variable that --key-env names (OPENAI_API_KEY)")
    try:
        import openai
    except ImportError as error:
        raise ConfigError("openai client", "not installed", INSTALL_LINE) from error
    return openai.OpenAI(base_url=base_url, api_key=api_key, timeout=timeout_s, max_retries=0)


class Caller:
    """Calls with patience. now_s, sleep: time, so that tests need none. say: told of waits, one line each."""

    def __init__(
        self,
        now_s: Callable[[], float],
        sleep: Callable[[float], None],
        say: Callable[[str], None],
        patience: Patience | None = None,
    ) -> None:
        self._now_s, self._sleep, self._say = now_s, sleep, say
        self._patience = patience or Patience()

    def read(self, what: str, call: Callable[[], T]) -> T:
        """Repeat a call that changes nothing until it is answered.

        Raises:
            UpstreamError: refused for good, or nobody answered for `give_up_s`.
        """
        return self._until_answered(what, call)

    def create(self, what: str, find: Callable[[], T | None], call: Callable[[], T]) -> T:
        """What `find` finds, else what `call` creates; after an unanswered call it looks again before creating.

        Raises:
            UpstreamError: as `read`.
        """

        def once() -> T:
            known = find()
            return known if known is not None else call()

        return self._until_answered(what, once)

    def _until_answered(self, what: str, call: Callable[[], T]) -> T:
        began_s, wait_s = self._now_s(), self._patience.backoff_s
        while True:
            try:
                return translated(what, call)
            except _Later as later:
                pause_s = max(wait_s, later.retry_after_s) if later.retry_after_s else wait_s
                if self._now_s() - began_s + pause_s > self._patience.give_up_s:
                    raise Unanswered(f"{later}; gave up after {self._now_s() - began_s:.0f} s, run it again") from later
                self._say(f"{later}; again in {pause_s:.0f} s")
                self._sleep(pause_s)
                wait_s = min(self._patience.backoff_max_s, wait_s * 2)


class _Later(UpstreamError):
    """Worth another try. retry_after_s: what the server asked for, 0 for nothing."""

    def __init__(self, message: str, retry_after_s: float = 0.0) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message)


def translated(what: str, call: Callable[[], T]) -> T:
    """Run a call of the client; its errors become one line with a cure.

    Raises:
        UpstreamError: refused. _Later: worth another try.
    """
    import openai

    try:
        return call()
    except openai.APITimeoutError as error:
        raise _Later(f"{what}: no answer in time") from error
    except openai.APIConnectionError as error:
        cause = str(error.__cause__ or error).splitlines() or [""]
        raise _Later(f"{what}: connection failed ({cause[0][:120]})") from error
    except openai.RateLimitError as error:
        if error.code in ("insufficient_quota", "billing_hard_limit_reached"):
            raise UpstreamError(
                f"{what}: {_message(error)}; raise the limit or add credit, then run it again"
            ) from error
        raise _Later(f"{what}: rate limited", _retry_after_s(error)) from error
    except openai.AuthenticationError as error:
        raise UpstreamError(f"{what}: the key is not accepted ({_message(error)}); check --key-env") from error
    except openai.PermissionDeniedError as error:
        raise UpstreamError(f"{what}: not allowed ({_message(error)}); the key needs rights on files, jobs") from error
    except openai.APIStatusError as error:
        if error.status_code >= 500 or error.status_code in (408, 409):
            raise _Later(f"{what}: HTTP {error.status_code}", _retry_after_s(error)) from error
        raise UpstreamError(f"{what}: refused, HTTP {error.status_code}: {_message(error)}") from error
    except openai.APIError as error:
        raise UpstreamError(f"{what}: {_message(error)}; is the base URL that of an OpenAI-compatible API?") from error


def _retry_after_s(error: Any) -> float:
    """Seconds of `retry-after-ms` or `retry-after`; an HTTP date is not worth reading, 0 then."""
    for name, factor in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            value = float(error.response.headers.get(name, "")) * factor
        except ValueError:
            continue
        if 0.0 < value < 3600.0:
            return value
    return 0.0


def _message(error: Any) -> str:
    body = error.body
    text = body.get("message") if isinstance(body, dict) else None
    return " ".join(str(text or error).split())[:300]
