"""A thread with an event loop and a connection, for synchronous callers in several threads."""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from concurrent.futures import CancelledError
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

import nats.errors
from eventsourcing.persistence import DataError, InterfaceError, InternalError, OperationalError, ProgrammingError

from ledger import errors

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator

    from ledger.nats.client import LedgerClient

_CLOSE_SECONDS = 5
_FINISH_SECONDS = 2  # calls made before a close may still be answered


class EventLoopThread:
    """Runs coroutines on a connection, from any thread; connects on first use.

    Calls wait for each other only at the server. Errors of the log are raised as the library's.
    """

    def __init__(self, connect: Callable[[], Awaitable[LedgerClient]]) -> None:
        self._open_connection = connect
        self._loop = asyncio.new_event_loop()
        self._clients: list[LedgerClient] = []
        self._running_calls: set[asyncio.Task[object]] = set()
        self._thread = threading.Thread(target=_serve, args=(self._loop,), name="jetstream", daemon=True)
        self._pid = os.getpid()
        self._connected = asyncio.Lock()
        # Without a call of close(), no thread and no connection is left behind.
        self._close = weakref.finalize(
            self, _close, self._pid, self._loop, self._thread, self._clients, self._running_calls
        )
        self._thread.start()

    def run[T](self, work: Callable[[LedgerClient], Coroutine[None, None, T]], *, endless: bool = False) -> T:
        """Return the result of a coroutine on the connection.

        `close` waits for it, unless it is `endless`: a wait for an event that may never come.

        Raises:
            InterfaceError: closed, created before a fork in another process, or called from its own thread.
            OperationalError: the server cannot be reached, or gives no answer in time.
            DatabaseError: as in ``library_errors``.
        """
        self._check()
        with library_errors():
            future = asyncio.run_coroutine_threadsafe(self._on_connection(work, endless), self._loop)
            try:
                return future.result()
            except CancelledError:
                raise InterfaceError("closed while it was waiting for the server") from None
            except BaseException:
                future.cancel()  # for instance Ctrl-C
                raise

    def call_soon(self, call: Callable[[], object]) -> None:
        """Schedule a call on the loop, without waiting; ignored after `close`."""
        if self._close.alive and self._pid == os.getpid():
            self._loop.call_soon_threadsafe(call)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[LedgerClient]:
        """Open another connection, for a reader of many events."""
        client = await self._connect()
        try:
            yield client
        finally:
            self._clients.remove(client)
            await client.close()

    async def _connect(self) -> LedgerClient:
        client = await self._open_connection()
        self._clients.append(client)
        return client

    def close(self) -> None:
        """End all calls, connections and the thread; a second call is harmless."""
        self._close()

    def _check(self) -> None:
        if self._pid != os.getpid():
            raise InterfaceError("created before a fork, in another process: construct the application in this process")
        if not self._close.alive:
            raise InterfaceError("closed: construct the application or its factory again")
        if threading.current_thread() is self._thread:
            raise InterfaceError("called from the event loop's own thread, which would wait for itself")

    async def _on_connection[T](self, work: Callable[[LedgerClient], Coroutine[None, None, T]], endless: bool) -> T:
        task = asyncio.current_task()
        if task and not endless:
            self._running_calls.add(task)
            task.add_done_callback(self._running_calls.discard)
        if not self._clients:
            async with self._connected:
                if not self._clients:
                    await self._connect()
        return await work(self._clients[0])


@contextmanager
def library_errors() -> Iterator[None]:
    """Raise errors of the log as errors of the `eventsourcing` library (PEP 249's names)."""
    try:
        yield
    except errors.UnavailableError as error:
        raise OperationalError(str(error)) from error
    except errors.TooLargeError as error:
        raise DataError(str(error)) from error
    except errors.LostEventsError as error:
        raise InternalError(str(error)) from error
    except errors.LedgerError as error:
        raise ProgrammingError(str(error)) from error
    except nats.errors.Error as error:
        raise InterfaceError(f"connection: {errors.reason_of(error)}") from error


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    loop.run_forever()


def _close(
    pid: int,
    loop: asyncio.AbstractEventLoop,
    thread: threading.Thread,
    clients: list[LedgerClient],
    running_calls: set[asyncio.Task[object]],
) -> None:
    """Close once; perhaps called by the garbage collector, in any thread."""
    if pid != os.getpid():
        return  # a fork shares its sockets with its parent process
    if threading.current_thread() is thread:
        loop.create_task(_end(loop, clients, running_calls))
        return
    loop.call_soon_threadsafe(lambda: loop.create_task(_end(loop, clients, running_calls)))
    thread.join(_CLOSE_SECONDS)
    if not thread.is_alive():
        loop.close()


async def _end(
    loop: asyncio.AbstractEventLoop, clients: list[LedgerClient], running_calls: set[asyncio.Task[object]]
) -> None:
    try:
        if running_calls:
            await asyncio.wait(running_calls, timeout=_FINISH_SECONDS)
        for client in clients:
            await asyncio.wait_for(client.close(), 1)
    except (TimeoutError, nats.errors.Error):
        pass  # the loop ends in any case
    finally:
        other_tasks = [task for task in asyncio.all_tasks(loop) if task is not asyncio.current_task()]
        for task in other_tasks:
            task.cancel()
        await asyncio.gather(*other_tasks, return_exceptions=True)
        loop.stop()
