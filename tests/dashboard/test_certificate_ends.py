"""The ends of certificates for the metrics are those that servers show; other answers give none."""

from __future__ import annotations

import asyncio
from datetime import datetime
from pathlib import Path

import pytest

from app.runtime.certificates import make_certificates
from dashboard import certificate_ends as module
from dashboard.certificate_ends import certificate_ends
from tests.support.nats_servers import Server, free_ports
from tests.support.postgres_tls import tls_in_front

pytestmark = pytest.mark.integration


async def test_ends_are_those_of_the_files(tmp_path: Path) -> None:
    made = {one.file: one.expires for one in make_certificates(tmp_path, [["nats", "localhost"], ["database"]], 30)}
    tls = f'tls {{ cert_file: "{tmp_path / "nats.pem"}", key_file: "{tmp_path / "nats-key.pem"}" }}\n'
    server, plain = Server(tmp_path / "server", tls), Server(tmp_path / "plain")
    port, unused = free_ports(2)
    for one in (server, plain):
        await asyncio.to_thread(one.start)
    try:
        with tls_in_front(port, unused, tmp_path / "database.pem", tmp_path / "database-key.pem"):
            urls = tuple(f"nats://u:p@127.0.0.1:{one}" for one in (server.port, plain.port, unused))
            own = str(tmp_path / "database.pem")
            found = await certificate_ends(
                urls, (("127.0.0.1", port), ("127.0.0.1", unused), ("127.0.0.1", 99_999)), own
            )
        expected: dict[str, datetime] = {f"127.0.0.1:{server.port}": made["nats.pem"]}
        expected |= {f"127.0.0.1:{port}": made["database.pem"], "dashboard": made["database.pem"]}
        assert found == expected
        assert await certificate_ends((), (("127.0.0.1", plain.port),), str(tmp_path / "none.pem")) == {}
    finally:
        for one in (server, plain):
            await asyncio.to_thread(one.stop)


@pytest.mark.parametrize(
    "said", [b"", b"S", b"N", b"\xff" * 100_000, b'INFO {"tls_required":true}\r\n', b"INFO {}\r\n"]
)
async def test_what_is_no_server_has_no_certificate(said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PATIENCE_SECONDS", 0.3)

    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        await asyncio.sleep(0.5)
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert await certificate_ends((f"tls://127.0.0.1:{port}",), (("127.0.0.1", port),), None) == {}
