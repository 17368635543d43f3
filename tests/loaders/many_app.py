"""The web application that many.py has gunicorn and uvicorn serve: each worker loads the model as it imports this."""

import os

from many import FOLDER, RESULTS, record

record(os.environ[FOLDER], os.environ[RESULTS])


def wsgi(_environ, start_response):
    start_response("200 OK", [("content-type", "text/plain")])
    return [b"ready"]


async def asgi(scope, _receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": b"ready"})
