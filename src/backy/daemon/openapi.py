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
_TEXT = {"type": "string"}
_COUNT = {"type": "integer", "minimum": 0}
_INSTANT = {"type": "string", "format": "date-time"}
_FLAG = {"type": "string", "enum": ["0", "1"]}
# The rules of `domain.names`.
_JOB = {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"}
_TAG = {"type": "string", "pattern": "^[A-Za-z0-9_][A-Za-z0-9_.:+-]{0,62}$"}
_NAME = {"name": "name", "in": "path", "required": True, "schema": _JOB}
_SPEC = {
    "name": "spec",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "minLength": 1},
    "example": "last(tag:daily)",
}


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


def _nullable(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**schema, "nullable": True}


def _object(**properties: Mapping[str, Any]) -> Mapping[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _list(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"type": "array", "items": schema}


_STATUS = _object(
    job=_JOB,
    sla={"type": "string", "enum": ["OK", "TOO OLD"]},
    sla_overdue=_COUNT,
    status=_TEXT,
    last_time=_nullable(_INSTANT),
    last_tags=_TEXT,
    last_duration=_nullable({"type": "number", "minimum": 0}),
    next_time=_nullable(_INSTANT),
    next_tags=_TEXT,
    manual_tags=_TEXT,
    problem_reports=_COUNT,
    unsynced_revs=_COUNT,
    local_revs=_COUNT,
)
_CONFIGURED = _object(
    name=_JOB,
    path=_TEXT,
    status=_TEXT,
    schedule={"type": "object", "additionalProperties": _object(interval=_COUNT, keep=_COUNT)},
)
_REVISION = _object(
    uuid={"type": "string", "format": "uuid"},
    timestamp=_INSTANT,
    tags=_list(_TAG),
    trust=_TEXT,
    consistency=_TEXT,
    image_size=_COUNT,
    stats={"type": "object"},
)
_TAG_EDIT = _object(old_tags=_list(_TEXT), new_tags=_list(_TAG))

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
                schema=_list(_STATUS),
                parameters=(_query("filter", _TEXT),),
            )
        },
        "/v1/reload": {"post": _route("Read the configuration again.", 204, 409)},
        "/v1/jobs": {"get": _route("Configured jobs.", 200, schema=_list(_CONFIGURED))},
        "/v1/jobs/{name}/run": {"post": _route("Run a job now.", 202, *(404, 409), parameters=(_NAME,))},
        "/v1/backups": {
            "get": _route("Histories that belong to no configured job.", 200, schema=_list(_JOB))
        },
        "/v1/backups/{name}/purge": {
            "post": _route(
                "Collect garbage, once revisions were forgotten.", 202, *(403, 404), parameters=(_NAME,)
            )
        },
        "/v1/backups/{name}/touch": {
            "post": _route("Note that a directory is still wanted.", 204, 404, parameters=(_NAME,))
        },
        "/v1/backups/{name}/revs": {
            "get": _route(
                "Revisions, oldest first.",
                200,
                *(400, 404),
                schema=_list(_REVISION),
                parameters=(_NAME, _query("only_clean", _FLAG)),
            )
        },
        "/v1/backups/{name}/revs/{spec}/tags": {
            "put": _route(
                "Replace tags, if they are what the caller saw.",
                204,
                *(400, 403, 404, 409, 412, 413, 503),
                parameters=(_NAME, _SPEC, _query("autoremove", _FLAG)),
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
                    "408": _ERROR,
                },
            }
        },
    },
}
