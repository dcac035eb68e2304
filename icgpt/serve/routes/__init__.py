"""The routes, a family of clients a file."""

from icgpt.serve.routes import documents, figures, health, tokens

ROUTERS = (health.router, tokens.router, figures.router, documents.router)

__all__ = ["ROUTERS"]
