"""What the OpenAPI document says beyond the routes' own words: how every request may be refused.

FastAPI documents a 422 that this listener never sends, and knows nothing of the shield in front of it. A client made
from the document must know every status it can meet; Schemathesis holds the listener to it (`make fuzz`).
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI

_ALWAYS = {
    HTTPStatus.BAD_REQUEST: "A value, the path or the Host header cannot be used",
    HTTPStatus.FORBIDDEN: "This Host or Origin may not ask here",
    HTTPStatus.NOT_FOUND: "There is no such thing",
    HTTPStatus.REQUEST_TIMEOUT: "The body came too slowly",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "The body is too large",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "The body is not application/json, or is encoded",
    HTTPStatus.INTERNAL_SERVER_ERROR: "The guard failed to answer; its log says why",
    HTTPStatus.SERVICE_UNAVAILABLE: "Something that is needed cannot be reached now",
}
_WITH_TOKEN = {
    HTTPStatus.UNAUTHORIZED: "The bearer token is missing or wrong",
    HTTPStatus.CONFLICT: "Understood and not allowed now; the message says why",
    HTTPStatus.TOO_MANY_REQUESTS: "Too many wrong tokens from this address; Retry-After says how long to wait",
}
_ERROR = {
    "title": "Error",
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["type", "message"],
            "properties": {
                "type": {"type": "string", "description": "A word for programs"},
                "message": {"type": "string", "description": "One line for people"},
            },
        }
    },
}


def document_refusals(app: FastAPI, *, reads_need_token: bool = False) -> None:
    """Make `app.openapi()` name every refusal and leave out what never comes; call it when all routes are there."""
    plain = app.openapi

    def whole() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = plain()
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            for name in ("HTTPValidationError", "ValidationError"):
                schemas.pop(name, None)
            schemas["Error"] = _ERROR
            for methods in document["paths"].values():
                for operation in methods.values():
                    _add(operation, reads_need_token)
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = whole  # type: ignore[method-assign]


def _add(operation: dict[str, Any], reads_need_token: bool) -> None:
    answers = operation["responses"]
    answers.pop("422", None)
    needs_token = bool(operation.get("security")) or reads_need_token
    for status, words in {**_ALWAYS, **(_WITH_TOKEN if needs_token else {})}.items():
        known = answers.setdefault(str(int(status)), {"description": words})
        schema = {"$ref": "#/components/schemas/Error"}
        content = known.setdefault("content", {}).setdefault("application/json", {})
        own = content.get("schema")
        # A status may also be an answer: 503 of /readyz says what is missing.
        content["schema"] = {"anyOf": [own, schema]} if own and own != schema else schema
