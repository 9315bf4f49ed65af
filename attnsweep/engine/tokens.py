"""Ray's authentication tokens: a driver that attaches to a cluster does as the cluster does.

A Ray cluster asks everyone for a token, or no one. A driver that sends none to the first kind is refused,
after 20 s; one that sends a token to the second kind is let in and then loses its actors. Left to itself, Ray
2.60 sends the token of ~/.ray/auth_token to a cluster that it finds on this machine, and none to one that is
named, whatever the cluster asks for. Hence the cluster is asked first, which takes some milliseconds.
"""

import contextlib
import os
from collections.abc import Iterator

from ray._private import services
from ray._raylet import AuthenticationTokenLoader, Config, GcsClient  # type: ignore[attr-defined]
from ray.exceptions import AuthenticationError

from attnsweep.core.errors import UserError

MODE = "RAY_AUTH_MODE"
HOW = (
    "put the cluster's into RAY_AUTH_TOKEN, the file that RAY_AUTH_TOKEN_PATH names, or ~/.ray/auth_token "
    "(on the head, `ray get-auth-token` prints it)"
)


def running() -> str | None:
    """The address (host:port) of the cluster that `ray start` began on this machine, if it did.

    One that another driver began for itself does not count: it ends with that driver.
    """
    address: str | None = services.find_bootstrap_address(None)
    return address


def agree(address: str) -> None:
    """Sets RAY_AUTH_MODE as the cluster whose head listens at `address` (host:port) wants it, where the user
    has not.

    Raises UserError where the token is missing or is not the cluster's, or where RAY_AUTH_MODE contradicts
    the cluster; RayError where what listens there is no cluster.
    """
    said = os.environ.get(MODE, "").lower()
    if accepted(address, "disabled"):
        if said == "token":
            raise UserError(
                f"the Ray cluster at {address} asks for no token, but {MODE}=token; "
                f"start it with {MODE}=token (then it does), or unset {MODE}"
            )
        set_mode("disabled")
        return
    if said not in ("", "token"):
        raise UserError(f"the Ray cluster at {address} asks for a token, but {MODE}={said}; unset it")
    if not AuthenticationTokenLoader.instance().has_token(ignore_auth_mode=True):
        raise UserError(f"the Ray cluster at {address} asks for a token and there is none here; {HOW}")
    if not accepted(address, "token"):
        raise UserError(f"the Ray cluster at {address} refuses the token that was found here; {HOW}")


def accepted(address: str, mode: str) -> bool:
    """Whether the cluster answers a client in this mode, which this process is in from now on."""
    set_mode(mode)
    try:
        with without_stderr():
            GcsClient(address).internal_kv_get(b"attnsweep", None)
    except AuthenticationError:
        return False
    return True


@contextlib.contextmanager
def without_stderr() -> Iterator[None]:
    """Nothing reaches standard error: Ray's C++ part reports every refusal there, whatever its log level."""
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def set_mode(mode: str | None) -> None:
    """Puts this process, and those that it starts, into a mode; None as if none had been named."""
    if mode is None:
        os.environ.pop(MODE, None)
    else:
        os.environ[MODE] = mode
    Config.initialize("")  # Ray has read the variable already
    AuthenticationTokenLoader.instance().reset_cache()


def header() -> dict[str, str]:
    """The HTTP header that shows this machine's token to a dashboard; empty where there is no token."""
    loader = AuthenticationTokenLoader.instance()
    if not loader.has_token(ignore_auth_mode=True):
        return {}
    return {"Authorization": f"Bearer {loader.get_raw_token(ignore_auth_mode=True)}"}
