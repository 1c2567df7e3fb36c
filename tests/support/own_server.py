"""A nats-server of an operator, with the shipped configuration."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from config.settings import Settings, load_settings
from ledger.nats.embedded_server import find_binary, server_environment
from tests.support.environment import ROOT
from tests.support.nats_servers import free_ports, wait_for_port

USERS = ("ledger", "operator", "upstream", "auditor", "sys")
"""Users of the shipped configuration; the password of each is `p-` and its name."""


class OwnServer:
    """A nats-server with the shipped configuration, as its operator runs it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_ports(1)[0]
        self.config = folder / "nats-server.conf"
        self.config.write_text((ROOT / "config" / "nats" / "nats-server.conf").read_text())
        environment = server_environment({user: f"p-{user}" for user in USERS}) | {"PATH": os.environ["PATH"]}
        words = [
            str(find_binary(None)),
            "-c",
            str(self.config),
            "-a",
            "127.0.0.1",
            "-p",
            str(self.port),
            "-sd",
            str(folder),
        ]
        with (folder / "server.log").open("wb") as log:
            self.process = subprocess.Popen(words, env=environment, stdout=log, stderr=log)
        wait_for_port(self.port, folder / "server.log")

    def url(self, user: str = "ledger") -> str:
        """Return the server's address with a user's credentials."""
        return f"nats://{user}:p-{user}@127.0.0.1:{self.port}"

    def settings(self, user: str = "ledger") -> Settings:
        """Return the settings of a ledger on this server."""
        options = {"data_dir": str(self.folder / "data"), "nats_url": self.url(user), "unregistered_sources": "desk"}
        return load_settings(options, {})
