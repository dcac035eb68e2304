"""A model in a canister: its jobs, read as they are written."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any, Final

from icgpt.client import ModelCanister, Stream
from icgpt.errors import IcgptError
from icgpt.texts import check_known
from icgpt.ui.writers import Progress

_LEAST_PAUSE: Final = 0.02
_MOST_PAUSE: Final = 0.5


class CanisterWriter:
    """Writes by a canister's jobs.

    Args:
        model: the canister; it must be ready, with a tokenizer.
        name: how people call it.
        network: the network's name, for the line about it.
    """

    def __init__(self, model: ModelCanister, name: str, network: str) -> None:
        info = model.info()
        shape = info.architecture
        if not info.ready or shape is None:
            raise IcgptError(
                f"the canister '{name}' has no model yet", f"Put one in: icgpt upload {name} MODEL"
            )
        if not info.tokenizer:
            raise IcgptError(
                f"the model in '{name}' has no tokenizer, and texts need one",
                "Upload the model again with its tokenizer.json.",
            )
        self._model = model
        self.name = name
        self.about = (
            f"{shape.parameters / 1e6:,.1f} million parameters in {info.precision}, "
            f"context {shape.n_ctx:,}, in a canister on '{network}'"
        )

    def write(self, prompt: str, /, **options: Any) -> Iterator[Progress]:
        """Goes on from a text; options as in docs/options.md."""
        check_known(prompt, self._model.decode(self._model.tokenize(prompt).token_ids))
        work = Stream(self._model, self._model.submit(prompt, **options))
        pause = _LEAST_PAUSE
        try:
            # Not the stream's own waiting: whoever reads can end it while there is no news.
            while work.completion.finish is None:
                if self._model.run(work.look()) is None:
                    time.sleep(pause)
                    pause = min(1.5 * pause, _MOST_PAUSE)
                else:
                    pause = _LEAST_PAUSE
                work.check()
                done = work.completion
                yield Progress(done.text or "", len(done.token_ids), done.finish)
        finally:
            if work.completion.finish is None:
                with contextlib.suppress(IcgptError):  # it may have ended by itself
                    work.cancel()

    def close(self) -> None:
        """End the connections."""
        self._model.close()
