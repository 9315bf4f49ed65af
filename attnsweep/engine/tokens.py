"""Ray's authentication tokens: a driver that attaches to a cluster does as the cluster does.

A Ray cluster asks everyone for a token, or no one. A driver that sends none to the first kind is refused,
after 20 s; one that sends a token to the second kind is let in and then loses its actors. Left to itself, Ray
2.60 sends the token of ~/.ray/auth_token to a cluster that it finds on this machine, and none to one that is
named, whatever the cluster asks for. Hence the cluster is asked first, which takes some milliseconds.
"""

import contextlib
import os
import secrets
import tempfile
from pathlib import Path

from attnsweep.core.errors import UserError
from attnsweep.engine import ray_private

MODE = "RAY_AUTH_MODE"
HOW = (
    "put the cluster's into RAY_AUTH_TOKEN, the file that RAY_AUTH_TOKEN_PATH names, or ~/.ray/auth_token "
    "(on the head, `ray get-auth-token` prints it)"
)


def running() -> str | None:
    """The address (host:port) of the cluster that `ray start` began on this machine, if it did.

    One that another driver began for itself does not count: it ends with that driver.
    """
    return ray_private.found_on_this_machine()


def agree(address: str) -> None:
    """Sets RAY_AUTH_MODE as the cluster whose head listens at `address` (host:port) wants it, where the user
    has not.

    Raises UserError where the token is missing or is not the cluster's, or where RAY_AUTH_MODE contradicts
    the cluster; RayError where what listens there is no cluster.
    """
    mode = os.environ.get(MODE, "").lower()
    is_open = accepted(address, "disabled")
    if is_open is None:  # it cannot be asked: Ray is left to itself
        set_mode(mode or None)
        return
    if is_open:
        if mode == "token":
            raise UserError(
                f"the Ray cluster at {address} asks for no token, but {MODE}=token; "
                f"start it with {MODE}=token (then it does), or unset {MODE}"
            )
        set_mode("disabled")
        return
    if mode not in ("", "token"):
        raise UserError(f"the Ray cluster at {address} asks for a token, but {MODE}={mode}; unset it")
    if ray_private.token() is None:
        raise UserError(f"the Ray cluster at {address} asks for a token and there is none here; {HOW}")
    if not accepted(address, "token"):
        raise UserError(f"the Ray cluster at {address} refuses the token that was found here; {HOW}")


def accepted(address: str, mode: str) -> bool | None:
    """Whether the cluster answers a client in this mode, which this process is in from now on; None where it
    cannot be asked.
    """
    set_mode(mode)
    return ray_private.answers(address)


def set_mode(mode: str | None) -> None:
    """Puts this process, and those that it starts, into a mode; None as if none had been named."""
    if mode is None:
        os.environ.pop(MODE, None)
    else:
        os.environ[MODE] = mode
    ray_private.read_environment_again()


def keep_private(*, create: bool = False) -> None:
    """Has the file of the token be readable by this user alone. With `create` it is made where there is none
    and Ray would make one, which everybody could read.
    """
    with contextlib.suppress(OSError, RuntimeError):  # Ray will say it
        path = Path.home() / ".ray" / "auth_token"
        is_named = {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys()
        if create and not path.exists() and not is_named and os.environ.get(MODE, "token").lower() == "token":
            path.parent.mkdir(mode=0o700, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=path.parent) as draft:  # of mode 0600
                draft.write(secrets.token_hex(32))
                draft.flush()
                os.link(draft.name, path)  # whole from the beginning, and over no other
            ray_private.read_environment_again()
        info = path.stat()
        if info.st_uid == os.geteuid() and info.st_mode & 0o077:
            path.chmod(0o600)


def header() -> dict[str, str]:
    """The HTTP header that shows this machine's token to a dashboard; empty where there is no token."""
    token = ray_private.token()
    return {"Authorization": f"Bearer {token}"} if token else {}
