"""What a command beside a running guard needs of guard.yaml: its admin address and where its token is.

The rest of the file is not read, and no secret before it is asked for: a variable for webhooks that is missing in the
shell of the person on call, or a typing error of yesterday in another section, must not stand between them and the
guard.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from guard.settings.fields import Model, split_host_port
from guard.settings.traffic import Admin, Listen
from slo.errors import ConfigError
from slo.strict_yaml import INIT, load_yaml_file, validate_model

_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}  # noqa: S104 - where to ask, not where to listen


class _Entry(Model):
    listen: Listen = Listen()
    admin: Admin = Admin()


@dataclass(frozen=True, slots=True)
class AdminEntry:
    """Where the admin listener of one guard.yaml is, and what names its token. token_file is absolute or relative to
    the working directory; at most one of token_env and token_file is set.
    """

    url: str
    token_env: str | None
    token_file: Path | None

    def token_of_file(self) -> str | None:
        """The token in `token_file`, None without one. Raises ConfigError."""
        if self.token_file is None:
            return None
        try:
            return self.token_file.read_text().strip() or None
        except (OSError, UnicodeDecodeError) as error:
            cure = f"make it readable for you ({getattr(error, 'strerror', None) or 'not text'}), or give --token-env"
            raise ConfigError("admin.token_file", str(self.token_file), cure) from error


def admin_entry(path: Path) -> AdminEntry:
    """Read the sections `listen` and `admin` of a guard.yaml.

    Raises:
        ConfigError: not there, not YAML, one of the two sections is wrong, or no port is fixed.
    """
    document, _ = load_yaml_file(path, INIT)
    wanted = {name: document[name] for name in ("listen", "admin") if document.get(name) is not None}
    entry = validate_model(_Entry, wanted, path.name)
    listen, admin = entry.listen, entry.admin
    url = admin_url(listen.admin)
    if url is None:
        cure = "the guard chose a port of its own; read it in the first lines of its log and give --admin"
        raise ConfigError(f"{path.name}: listen.admin", listen.admin, cure)
    file = admin.token_file
    if file is not None and not file.is_absolute():
        file = path.parent / file
    return AdminEntry(url, admin.token_env if file is None else None, file)


def admin_url(address: str) -> str | None:
    """Where to ask a listener; None when its port is 0, which means any.

    >>> admin_url("127.0.0.1:8801"), admin_url("0.0.0.0:9"), admin_url("[::]:9"), admin_url("localhost:0")
    ('http://127.0.0.1:8801', 'http://127.0.0.1:9', 'http://[::1]:9', None)
    """
    host, port = split_host_port(address)
    host = host.strip("[]")
    host = _EVERYWHERE.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host and port else f"http://{host}:{port}" if port else None
