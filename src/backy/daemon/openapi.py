"""The description of the API, as OpenAPI 3.0: what `/v1/openapi.json` answers and tests are made from.

    DOCUMENT["paths"]["/v1/status"]["get"]

Limits: a description; `api.py` does the work, and a test compares the two.
"""

from collections.abc import Mapping
from typing import Any

_ERROR = {
    "description": "Refused; `error` says why.",
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
}
_NAME = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
_SPEC = {"name": "spec", "in": "path", "required": True, "schema": {"type": "string"}}


def _query(name: str, schema: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"name": name, "in": "query", "required": False, "schema": schema}


def _route(
    summary: str,
    done: int,
    *refused: int,
    schema: Mapping[str, Any] | None = None,
    parameters: tuple[Mapping[str, Any], ...] = (),
    body: Mapping[str, Any] | None = None,
) -> Mapping[str, Any]:
    answer: dict[str, Any] = {"description": summary}
    if schema is not None:
        answer["content"] = {"application/json": {"schema": schema}}
    responses: dict[str, Any] = {str(done): answer}
    for status in (401, 408, *refused):
        responses[str(status)] = _ERROR
    route: dict[str, Any] = {
        "summary": summary,
        "responses": responses,
        "parameters": list(parameters),
    }
    if body is not None:
        route["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    return route


def _objects(*required: str) -> Mapping[str, Any]:
    return {"type": "array", "items": {"type": "object", "required": list(required)}}


_TAGS = {"type": "array", "items": {"type": "string"}}
_TAG_EDIT = {
    "type": "object",
    "properties": {"old_tags": _TAGS, "new_tags": _TAGS},
    "required": ["old_tags", "new_tags"],
    "additionalProperties": False,
}

DOCUMENT: Mapping[str, Any] = {
    "openapi": "3.0.3",
    "info": {"title": "backy scheduler", "version": "1"},
    "security": [{"token": []}],
    "components": {
        "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        "schemas": {
            "Error": {
                "type": "object",
                "properties": {"error": {"type": "string"}},
                "required": ["error"],
            }
        },
    },
    "paths": {
        "/v1/status": {
            "get": _route(
                "What every job is doing.",
                200,
                400,
                schema=_objects("job", "sla", "sla_overdue", "status", "next_tags"),
                parameters=(_query("filter", {"type": "string"}),),
            )
        },
        "/v1/reload": {"post": _route("Read the configuration again.", 204, 409)},
        "/v1/jobs": {
            "get": _route("Configured jobs.", 200, schema=_objects("name", "path", "status", "schedule"))
        },
        "/v1/jobs/{name}/run": {"post": _route("Run a job now.", 202, 404, parameters=(_NAME,))},
        "/v1/backups": {"get": _route("Histories that belong to no configured job.", 200, schema=_TAGS)},
        "/v1/backups/{name}/touch": {
            "post": _route("Note that a directory is still wanted.", 204, 404, parameters=(_NAME,))
        },
        "/v1/backups/{name}/revs": {
            "get": _route(
                "Revisions, oldest first.",
                200,
                404,
                schema=_objects("uuid", "timestamp", "tags", "trust"),
                parameters=(_NAME, _query("only_clean", {"type": "string", "enum": ["0", "1"]})),
            )
        },
        "/v1/backups/{name}/revs/{spec}/tags": {
            "put": _route(
                "Replace tags, if they are what the caller saw.",
                204,
                *(400, 403, 404, 412, 413, 503),
                parameters=(_NAME, _SPEC, _query("autoremove", {"type": "string", "enum": ["0", "1"]})),
                body=_TAG_EDIT,
            )
        },
        "/v1/openapi.json": {"get": _route("This description.", 200, schema={"type": "object"})},
        "/metrics": {
            "get": {
                "summary": "Figures for Prometheus.",
                "responses": {
                    "200": {
                        "description": "Prometheus' text format.",
                        "content": {"text/plain": {"schema": {"type": "string"}}},
                    },
                    "401": _ERROR,
                },
            }
        },
    },
}
