"""The application: a backend, its settings, and every route.

    app = build(LocalBackend(open_checkpoint("shakespeare-char")), Settings())

Each file of `routes` has a `router`. Its functions get the desk, where answers are asked for, by
`icgpt.serve.desk.TheDesk`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from fastapi import FastAPI
from starlette.middleware.trustedhost import TrustedHostMiddleware

import icgpt
from icgpt.errors import IcgptError
from icgpt.serve import problems
from icgpt.serve.backend import Backend
from icgpt.serve.desk import Desk
from icgpt.serve.document import Service
from icgpt.serve.figures import Figures
from icgpt.serve.keys import Keys
from icgpt.serve.middleware import Around
from icgpt.serve.routes import ROUTERS
from icgpt.serve.settings import Settings
from icgpt.serve.tasks import TaskDesk, Tasks
from icgpt.transport import LOOPBACK


def build(backend: Backend, settings: Settings, tasks: Tasks | None = None) -> FastAPI:
    """The application. It starts what writes when it starts, and closes it when it ends.

    Args:
        backend: what writes.
        settings: how it behaves.
        tasks: what tasks have of their own.
    """
    tasks = tasks or Tasks()
    figures = Figures()
    desk = Desk(backend, settings, figures)
    backends = [backend, *tasks.backends]

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as started:
            for one in backends:
                try:
                    await one.start()
                except IcgptError as error:
                    app.state.failure = error  # the server itself only says that it could not start
                    raise
                started.push_async_callback(one.close)
            yield

    app = Service(
        title="icgpt",
        version=icgpt.__version__,
        description="A GPT over HTTP: one engine behind the routes of several services.",
        lifespan=life,
        docs_url=None,
        redoc_url=None,
    )
    app.state.desk, app.state.keys = desk, Keys(settings)
    app.state.tasks = TaskDesk(tasks, desk, settings, figures)
    figures.watch("running", "Answers that are being written.", lambda: desk.running)
    figures.watch("waiting", "Answers that wait for their turn.", lambda: desk.waiting)
    figures.watch(
        "alive", "1 while the model can write.", lambda: float(all(one.alive() for one in backends))
    )
    figures.watch(
        "restarts",
        "Engines that ended and were started again.",
        lambda: sum(one.restarts for one in backends),
    )
    problems.install(app)
    for router in ROUTERS:
        app.include_router(router)
    app.add_middleware(Around, settings=settings, figures=figures)
    if settings.host in LOOPBACK:
        # No web page can reach it under a name of its own.
        names = ["localhost", "127.0.0.1", "[::1]"]
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=names)
    return app
