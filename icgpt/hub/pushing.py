"""Files to the hub: a model's or a Space's, in one commit.

The token is huggingface_hub's: HF_TOKEN, or as `hf auth login` leaves it. What is there already is
not sent again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from icgpt.checkpoint.hub import check_hub_id
from icgpt.hub.errors import HubRefusedError, TokenError
from icgpt.hub.files import Chosen
from icgpt.hub.library import endpoint, library, refusals, sending_failed

MAIN: Final = "main"


@dataclass(frozen=True)
class Target:
    """Where files go."""

    repository: str
    """owner/name."""
    kind: str = "model"
    """"model" or "space"."""
    revision: str = MAIN
    """A branch; made when it is not there."""
    private: bool = False
    """Make it private, where it is made; refuse when it is there and public."""

    def __post_init__(self) -> None:
        check_hub_id(self.repository)


@dataclass(frozen=True)
class Pushed:
    """What came of it."""

    url: str
    commit: str


def push(chosen: Chosen, target: Target, message: str) -> Pushed:
    """Sends files, after making the repository and the branch where they are missing.

    Args:
        chosen: the files.
        target: where to.
        message: the commit's message.
    """
    hub = library(f"pushing to {target.repository}")
    where: dict[str, Any] = {"repo_id": target.repository, "repo_type": target.kind}
    if hub.get_token() is None:
        raise TokenError(f"there is no token to write to {target.repository} with")
    api = hub.HfApi(endpoint=endpoint())
    try:
        made = {"space_sdk": "gradio"} if target.kind == "space" else {}
        url = api.create_repo(**where, **made, private=target.private or None, exist_ok=True)
        if target.private and not api.repo_info(**where).private:
            raise HubRefusedError(
                f"{target.repository} is there already, and everybody can read it",
                "Make it private on its page, choose another name, or leave --private out.",
            )
        if target.revision != MAIN:
            api.create_branch(**where, branch=target.revision, exist_ok=True)
        add = [
            hub.CommitOperationAdd(path_in_repo=one.name, path_or_fileobj=str(one.path))
            for one in chosen.files
        ]
        done = api.create_commit(
            **where, operations=add, commit_message=message, revision=target.revision
        )
    except refusals(hub) as error:
        raise sending_failed(hub, target.repository, error) from error
    return Pushed(str(url), str(done.oid))
