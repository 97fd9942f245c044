"""An exported folder put on the model hub."""

import re
from pathlib import Path

from zocore.errors import InputError

NAME = re.compile(r"[\w.-]+/[\w.-]+")


def check_name(name: str) -> None:
    """Raise InputError, before anything is written, when a name cannot be that of a repository."""
    if not NAME.fullmatch(name):
        raise InputError(f"--push-to-hub must be OWNER/NAME, not {name!r}")


def push(folder: Path, name: str) -> str:
    """Upload a folder as a new commit of a model repository, made if need be; return a sentence with its address.

    Uses the account that `hf auth login` or HF_TOKEN has set up. Raises InputError with one sentence when the hub
    cannot be reached or refuses; the folder stays.
    """
    import huggingface_hub  # with network code that nobody else needs

    try:
        hub = huggingface_hub.HfApi()
        hub.create_repo(name, exist_ok=True)
        hub.upload_folder(repo_id=name, folder_path=folder, commit_message="Tuned with zocore")
    except Exception as error:  # of a dozen classes: no network, no account, no right to write there
        first = " ".join(str(error).split("\n")[0].split())[:300].rstrip(".")
        raise InputError(
            f"{folder} was written, but the hub did not take it ({type(error).__name__}: {first}): log in with "
            f"`hf auth login`, then `hf upload {name} {folder}`"
        ) from error
    return f"pushed it to https://huggingface.co/{name}"
