"""The routes, a family of clients a file."""

from icgpt.serve.routes import (
    documents,
    figures,
    health,
    openai,
    predictions,
    sentences,
    tasks,
    tokens,
)

# The first that fits answers: predictions have paths below those of OpenAI's models.
ROUTERS = (
    health.router,
    sentences.router,
    tasks.router,
    predictions.router,
    openai.router,
    tokens.router,
    figures.router,
    documents.router,
)

__all__ = ["ROUTERS"]
