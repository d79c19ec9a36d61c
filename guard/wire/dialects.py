"""The list of dialects, by the name that guard.yaml uses (`routes[].adapter`)."""

from __future__ import annotations

from guard.wire.dialect import Dialect
from guard.wire.json_dialect import JsonDialect
from guard.wire.openai_chat import OpenAIChat
from guard.wire.openai_responses import OpenAIResponses
from guard.wire.passthrough import Passthrough

DIALECTS: dict[str, Dialect] = {
    "openai-chat": OpenAIChat(),
    "openai-responses": OpenAIResponses(),
    "json": JsonDialect(),
    "passthrough": Passthrough(),
}
