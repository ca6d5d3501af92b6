"""A scope for each request of a WSGI application: what it borrowed goes back when it ends.

Servers keep connections alive, and serve one request after the other in one greenlet.  So a
lease that a request forgets is not even reclaimed by the greenlet's death: that comes when
the browser goes away.  In front of any WSGI application::

    application = RequestScope(application)

Rules:

* A request ends when its server closes what the application has returned: after the last
  byte of a streamed body, or when the client has gone.  A list or a tuple holds all of its
  body, so the request ends when it is returned, before a slow client has taken it.
* What was borrowed and is still held goes back then, as by its own ``with``, and
  :class:`~gpool.telemetry.LeaseForgotten` tells from which line.  A resource is reset after
  an orderly end, after an ``Exception``, and after a body that was not sent to its end
  (:class:`ResponseAborted`); it is discarded if a kill or a ``gevent.Timeout`` ended the request.
* What is meant to last as long as the request is told to its scope, which is in the
  environ: ``environ[SCOPE].keep(pool.checkout())`` returns the worker, and is no news.
* What was borrowed before the request, and by greenlets that it has spawned, is not touched.
* One around another: each has its scope, and ``environ[SCOPE]`` is the inner one's until that
  has ended, then the outer one's again.

The application's iterable is passed on piece by piece, ``write`` and its exceptions as they
are.  A server's ``wsgi.file_wrapper`` is recognised, so that it can still use ``sendfile``.

Limits: a pool lends in one thread.  A server that serves each request in a thread of its own,
as ``flask run`` does, has to be patched: there is a warning if it is not.

Not here: scopes of anything else (:class:`gpool.Scope`), Flask (``flask.py``).

Source:
    PEP 3333: whoever serves has to call ``close`` at the end, whatever that is.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterable, Iterator
from sys import exception
from typing import TYPE_CHECKING, Any, Final

from gevent import monkey

import gpool

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

SCOPE: Final = "gpool.scope"
"""Where in the environ the :class:`gpool.Scope` of a request is."""


class ResponseAborted(gpool.GPoolError):
    """A body was closed before its end: its client has gone, or wants no more of it.

    Nobody gets to see it but a resource's ``is_broken``.
    """

    def __str__(self) -> str:
        return "the response was closed before its body had ended"


class RequestScope:
    """Middleware: gives back what a request borrowed when its response ends.

    Args:
        app: The WSGI application.

    Raises:
        TypeError: It cannot be called.
    """

    def __init__(self, app: WSGIApplication) -> None:
        if not callable(app):
            raise TypeError(f"app: expected a WSGI application, got {app!r}")
        self.app = app
        self._has_checked_server = False

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request.

        Warns:
            RuntimeWarning: The server has threads that gevent has not patched.
        """
        if not self._has_checked_server:
            self._has_checked_server = True
            _warn_if_threaded(environ)
        with contextlib.ExitStack() as ends:
            _begin(environ, ends)
            result = self.app(environ, start_response)
            if not _is_lazy(result):
                return result
            body = _Body(result)
            if _is_file(result, environ):
                return _hooked(result, body, ends)
            body.ends = ends.pop_all()
            return body


def _begin(environ: WSGIEnvironment, ends: contextlib.ExitStack) -> None:
    """Give a request its scope; once that has ended, the one around it is there again."""
    outer, scope = environ.get(SCOPE), gpool.Scope()
    if outer is not None:
        ends.callback(_restore, environ, scope, outer)
    environ[SCOPE] = ends.enter_context(scope)


def _restore(environ: WSGIEnvironment, inner: gpool.Scope, outer: gpool.Scope) -> None:
    if environ.get(SCOPE) is inner:
        environ[SCOPE] = outer


def _warn_if_threaded(environ: WSGIEnvironment) -> None:
    """Warn of a server whose requests run in threads: a pool refuses all but one of them."""
    if environ.get("wsgi.multithread") and not monkey.is_module_patched("threading"):
        warnings.warn(_THREADS, RuntimeWarning, stacklevel=3)


_THREADS: Final = (
    "this server may run requests in threads, and a pool lends in one thread only: serve by "
    "gevent (gunicorn -k gevent), or patched (python -m gevent.monkey --module flask run)"
)


class _Body:
    """What an application has returned; what is in `ends` ends when it is closed."""

    def __init__(self, result: Iterable[bytes]) -> None:
        self.ends = contextlib.ExitStack()
        self._close: Callable[[], object] = getattr(result, "close", _nothing)
        try:
            self._iterator: Iterator[bytes] = iter(result)
        except BaseException:
            self._close()  # the server gets nothing to close
            raise
        self._error: BaseException | None = ResponseAborted()  # that it ends with, as of now

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            return next(self._iterator)
        except StopIteration:
            self._error = None
            raise
        except BaseException as error:
            self._error = error
            raise

    def close(self) -> None:
        """End the body, then the scope."""
        error, self._error = self._error, None  # its traceback knows us: no cycle
        killed = exception()
        if killed is not None and not isinstance(killed, Exception | GeneratorExit):
            error = killed  # it struck the server
        try:
            self._close()
        except BaseException as failure:
            error = failure
            raise
        finally:
            self._end(error)

    def count_as_whole(self) -> None:
        """Count as sent to its end, whatever happens: the server does not say."""
        self._error = None

    def _end(self, error: BaseException | None) -> None:
        if error is None:
            self.ends.__exit__(None, None, None)
        else:
            self.ends.__exit__(type(error), error, error.__traceback__)


def _is_lazy(result: Any) -> bool:
    """Tell whether a body is still to be made; what is no iterable is the server's to judge."""
    kind = type(result)
    is_iterable = hasattr(kind, "__iter__") or hasattr(kind, "__getitem__")
    return is_iterable and kind not in (list, tuple)


def _nothing() -> None:
    """Stand for a ``close`` that there is not."""


def _is_file(result: Any, environ: WSGIEnvironment) -> bool:
    """Tell whether the server may send it without us."""
    wrapper = environ.get("wsgi.file_wrapper")
    return isinstance(wrapper, type) and isinstance(result, wrapper)


def _hooked(result: Iterable[bytes], body: _Body, ends: contextlib.ExitStack) -> Iterable[bytes]:
    """Return a server's own file wrapper, whose close ends the scope; if not, that ends now."""
    with contextlib.suppress(AttributeError):
        result.close = body.close  # type: ignore[attr-defined]
        body.count_as_whole()
        body.ends = ends.pop_all()
    return result
