"""An object that is written only where it is as it was last seen: S3's If-None-Match and If-Match, which
pyarrow cannot ask for and obstore can.
"""

import os
import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from attnsweep.core.errors import Unreachable
from attnsweep.results import storage

State = dict[str, str]  # identifies one version of an object: its e-tag, in some stores its number, too
REQUEST_S = 20.0
HOPELESS = ("NoSuchBucket", "InvalidAccessKeyId", "SignatureDoesNotMatch")


class Unconditional(Exception):
    """A store takes no conditions, or none from here; the message says why."""


@dataclass(frozen=True)
class ConditionalObject:
    """An object in a store that knows conditions."""

    store: Any
    name: str

    def read(self) -> tuple[bytes, State] | None:
        """What it holds, and its state; None where there is none. Raises OSError."""
        import obstore

        try:
            found = obstore.get(self.store, self.name)
            return bytes(found.bytes()), state_of(found.meta)
        except FileNotFoundError as error:
            refuse_hopeless(error)
            return None
        except obstore.exceptions.BaseError as error:
            raise as_os_error(error) from error

    def write(self, content: bytes, state: State | None) -> State | None:
        """Writes it if it is in that state (None: if there is none). Returns its new state, None where it was
        in another one. Raises OSError.
        """
        import obstore

        try:
            mode: Any = "create" if state is None else state
            return state_of(obstore.put(self.store, self.name, content, mode=mode, use_multipart=False))
        except (obstore.exceptions.AlreadyExistsError, obstore.exceptions.PreconditionError):
            found = self.read()  # an answer may have been lost, and the request sent again
            return found[1] if found and found[0] == content else None
        except (obstore.exceptions.BaseError, FileNotFoundError) as error:
            raise as_os_error(error) from error

    def delete(self) -> None:
        """Deletes it. Raises OSError."""
        import obstore

        try:
            obstore.delete(self.store, self.name)
        except (obstore.exceptions.BaseError, FileNotFoundError) as error:
            raise as_os_error(error) from error


def state_of(meta: Any) -> State:
    """The state of an object that the store describes."""
    return {key: meta[key] for key in ("e_tag", "version") if meta.get(key)}


def as_os_error(error: Exception) -> OSError:
    """What obstore raises, as the error of a store that may be well again. Raises Unreachable elsewhere."""
    refuse_hopeless(error)
    return OSError(storage.short(error))


def refuse_hopeless(error: Exception) -> None:
    """Raises Unreachable where time heals nothing."""
    denied = type(error).__name__ in ("PermissionDeniedError", "UnauthenticatedError")
    if denied or any(word in str(error) for word in HOPELESS):
        raise Unreachable(f"the store refuses ({storage.short(error)})") from error


def conditional_object(path: str) -> ConditionalObject:
    """The object at a URI. Raises Unconditional where its store does not heed conditions, found by trying on
    an object beside it; OSError where the store fails.
    """
    store, name = store_of(path)
    probe = ConditionalObject(store, f"{name}-{uuid.uuid4().hex[:8]}")
    try:
        first = probe.write(b"1", None)
        second = first and probe.write(b"2", first)
        if not second or probe.write(b"3", None) or probe.write(b"4", first):
            raise Unconditional("it overwrites what it was asked not to")
    finally:
        probe.delete()
    return ConditionalObject(store, name)


def store_of(path: str) -> tuple[Any, str]:
    """The folder of a URI as obstore's store, and the name below it. Raises Unconditional where there is
    none.
    """
    try:
        import obstore.store
    except ImportError:
        raise Unconditional("obstore is not installed here: pip install obstore") from None
    uri = urlsplit(path)
    if uri.scheme not in ("s3", "gs", "gcs"):
        raise Unconditional(f"{uri.scheme}:// is not one that obstore was tried with")
    folder, _, name = uri.path.rpartition("/")
    bucket = uri.netloc.rpartition("@")[2]
    config = s3_settings(path) if uri.scheme == "s3" else {}
    limits: Any = {"allow_http": True, "timeout": f"{REQUEST_S:.0f}s"}
    patience: Any = {"max_retries": 2, "retry_timeout": timedelta(seconds=2 * REQUEST_S)}
    scheme = "s3" if uri.scheme == "s3" else "gs"
    url = f"{scheme}://{bucket}{folder}"
    return obstore.store.from_url(url, client_options=limits, retry_config=patience, **config), name


def s3_settings(path: str) -> dict[str, Any]:
    """What pyarrow reads from a URI of S3, and from the machine, in obstore's words."""
    uri, query = urlsplit(path), parse_qs(urlsplit(path).query)
    settings: dict[str, Any] = {"region": storage.opened(path)[0].region}
    if endpoint := query.get("endpoint_override"):
        settings["endpoint"] = endpoint[0] if "://" in endpoint[0] else f"{scheme_of(query)}://{endpoint[0]}"
    if uri.username:
        settings["access_key_id"] = unquote(uri.username)
        settings["secret_access_key"] = unquote(uri.password or "")
    elif "AWS_ACCESS_KEY_ID" not in os.environ:
        settings |= signed_in()
    return settings


def scheme_of(query: dict[str, list[str]]) -> str:
    """http or https, as the URI says."""
    return query.get("scheme", ["https"])[0]


def signed_in() -> dict[str, Any]:
    """Amazon's own profiles and logins, which obstore knows by boto3 only."""
    try:
        from obstore.auth.boto3 import Boto3CredentialProvider

        return {"credential_provider": Boto3CredentialProvider()}
    except (ImportError, ValueError):  # no boto3, or nothing that it finds: obstore asks the machine itself
        return {}
