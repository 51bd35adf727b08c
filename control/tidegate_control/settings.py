"""The control server's settings: one YAML file, read at the start."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """What `control-settings.schema.json` says, with the defaults filled in. Times in seconds, sizes in bytes."""

    repository: Path
    branch: str = "main"
    inventory: str = "inventory"
    remote: str | None = None
    write: str = "branch"
    """`branch`: a write is a commit on `branch`; `review`: on a branch of its own, for somebody to merge."""
    listen: str = "127.0.0.1:8080"
    url: str | None = None
    """As browsers write it, where a proxy stands before the server: https://control.example.net."""
    hosts: tuple[str, ...] = ()
    tls_cert: Path | None = None
    tls_key: Path | None = None
    plain_http: str = "loopback"
    trusted_proxies: tuple[str, ...] = ()
    state: Path = Path("/var/lib/tidegate-control")
    events: str | None = None
    """Where events are kept: duckdb:///PATH or clickhouse://USER@HOST:PORT/DATABASE; None: STATE/intake.duckdb."""
    events_password_file: Path | None = None
    events_days: int = 30
    session_idle: int = 3600
    session_end: int = 43200
    body_limit: int = 1 << 20
    intake_body_limit: int = 16 << 20
    connections: int = 256
    publish_command: tuple[str, ...] = ()
    publish_directory: Path | None = None

    @property
    def events_url(self) -> str:
        """Where events are kept."""
        return self.events or f"duckdb://{self.state.absolute() / 'intake.duckdb'}"
