"""The ends of the certificates of the servers that a ledger needs, as the servers show them: for the metrics.

Nothing is verified here. The connections that do the work verify, and say why they refuse.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import struct
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cryptography import x509

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from datetime import datetime

_log = logging.getLogger(__name__)
_PATIENCE_SECONDS = 3.0
_POSTGRES_TLS = struct.pack(">ii", 8, 80877103)
"""The message by which a client of PostgreSQL asks for TLS (SSLRequest)."""
_INFO_BYTES = 1 << 16


async def certificate_ends(
    nats_servers: tuple[str, ...], databases: tuple[tuple[str, int], ...], own_certificate: str | None
) -> dict[str, datetime]:
    """Return the end of each certificate by the name of its server; servers without TLS or an answer are left out.

    ``nats_servers`` are URLs, ``databases`` hosts and ports of PostgreSQL.
    ``own_certificate`` is the dashboard's, a file (PEM).
    """
    asked = [(url.rpartition("@")[2].rpartition("/")[2], _of_nats(url)) for url in nats_servers]
    asked += [(f"{host}:{port}", _of_postgres(host, port)) for host, port in databases]
    if own_certificate is not None:
        asked.append(("dashboard", _of_file(own_certificate)))
    found = await asyncio.gather(*(_patiently(name, one) for name, one in asked))
    return {name: end for (name, _), end in zip(asked, found, strict=True) if end is not None}


async def _patiently(name: str, asking: Awaitable[datetime | None]) -> datetime | None:
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            return await asking
    except (OSError, ValueError, EOFError, asyncio.LimitOverrunError, OverflowError) as error:
        _log.debug("the certificate of %s cannot be read: %s", name, error)
        return None


async def _of_nats(url: str) -> datetime | None:
    where = urlsplit(url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port or 4222, limit=_INFO_BYTES)
    try:
        info = await reader.readline()
        if b'"tls_required":true' not in info and b'"tls_available":true' not in info:
            return None
        return await _end_after_tls(writer)
    finally:
        writer.close()


async def _of_postgres(host: str, port: int) -> datetime | None:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(_POSTGRES_TLS)
        if await reader.readexactly(1) != b"S":
            return None
        return await _end_after_tls(writer)
    finally:
        writer.close()


async def _end_after_tls(writer: asyncio.StreamWriter) -> datetime:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    await writer.start_tls(context)
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    return x509.load_der_x509_certificate(shown).not_valid_after_utc


async def _of_file(path: str) -> datetime | None:
    return x509.load_pem_x509_certificates(await asyncio.to_thread(Path(path).read_bytes))[0].not_valid_after_utc
