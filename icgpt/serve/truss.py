"""A model as a Truss's server calls it: `load` once, then `predict` for each request.

The server loads in a thread and predicts in an event loop. The engines belong to a loop of their
own, in which all requests that are there together share each pass.
"""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ValidationError

from icgpt.checkpoint import open_checkpoint
from icgpt.errors import IcgptError
from icgpt.serve.desk import Desk
from icgpt.serve.figures import Figures
from icgpt.serve.local import PRECISION, LocalBackend
from icgpt.serve.predicting import Inputs, Output, predict
from icgpt.serve.problems import invalid_request, problem_of
from icgpt.serve.settings import Settings


class TrussModel:
    """What `model/model.py` of a Truss derives its `Model` from."""

    folder: ClassVar[str | None] = None
    """The model's folder, below the Truss's data."""
    hub_id: ClassVar[str | None] = None
    """owner/name, where the model is fetched from the hub."""
    revision: ClassVar[str | None] = None
    precision: ClassVar[str] = PRECISION

    def __init__(self, **told: Any) -> None:
        self._data = Path(told.get("data_dir", "data"))
        self._loop = asyncio.new_event_loop()

    def load(self) -> None:
        """Brings the model into memory."""
        source = self.hub_id or str(self._data / (self.folder or ""))
        checkpoint = open_checkpoint(source, revision=self.revision)
        backend = LocalBackend(checkpoint, self.precision)
        self._desk = Desk(backend, Settings(), Figures())
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        asyncio.run_coroutine_threadsafe(backend.start(), self._loop).result()

    async def predict(self, model_input: Any) -> dict[str, Any]:
        """Goes on from prompts; what went wrong is told in the answer."""
        try:
            inputs = Inputs.model_validate(model_input).root
            working = asyncio.run_coroutine_threadsafe(predict(self._desk, inputs), self._loop)
            output = await asyncio.wrap_future(working)
        except ValidationError as error:
            output = Output.failed(invalid_request(error.errors()).message)
        except IcgptError as error:
            output = Output.failed(problem_of(error).message)
        return output.model_dump()
