"""The routes, a family of clients a file."""

from icgpt.serve.routes import (
    documents,
    figures,
    health,
    predictions,
    sentences,
    tasks,
    tokens,
)

ROUTERS = (
    health.router,
    sentences.router,
    tasks.router,
    predictions.router,
    tokens.router,
    figures.router,
    documents.router,
)

__all__ = ["ROUTERS"]
