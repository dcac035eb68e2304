"""A model from the hub into a folder of its own, whole or not at all."""

from __future__ import annotations

import shutil
from pathlib import Path

from icgpt.checkpoint import Checkpoint, open_checkpoint
from icgpt.checkpoint.hub import check_hub_id, fetch_model
from icgpt.hub.files import BESIDE
from icgpt.hub.folders import check_free, new_folder


def pull(repository: str, folder: Path, revision: str | None = None) -> Checkpoint:
    """Fetches a model, checks it, and puts it into a new folder.

    Args:
        repository: owner/name.
        folder: where to; it must be empty, or not there.
        revision: branch, tag or commit.
    """
    check_hub_id(repository)
    check_free(folder)
    fetched = fetch_model(repository, revision, also=BESIDE)
    open_checkpoint(str(fetched))
    with new_folder(folder) as made:
        # What lies in the cache are links; here they become files.
        shutil.copytree(fetched, made, dirs_exist_ok=True)
    return open_checkpoint(str(folder))
