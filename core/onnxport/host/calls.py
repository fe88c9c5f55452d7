"""Hooks are called by pluggy, with all of its options; what fails in a plugin stays in that plugin.

pluggy sees each plugin through an object that holds its implementations, each behind a guard. A guard checks what its
implementation returns, and notes who failed. A call that fails is made again without that plugin, by
``subset_hook_caller``: the wrappers see a call in which it doesn't take part. What the others returned is remembered
meanwhile, so that each is called once.
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Generator, Mapping
from types import ModuleType
from typing import Any

import pluggy

from onnxport.errors import PluginError
from onnxport.host.hookspecs import API_VERSION, PROJECT
from onnxport.host.info import PluginInfo

Check = Callable[[PluginInfo, Any, frozenset[int]], Any]
"""Takes a plugin, what its hook returned, and the ids of items that other plugins returned; gives the checked result.

Raises TypeError or ValueError where the hook may not return that.
"""


class _Implementations:
    """A plugin as pluggy sees it: its implementations, guarded."""

    def __init__(self, info: PluginInfo) -> None:
        self.info = info


class Hooks:
    """The hooks of a set of plugins.

    Args:
        specs: the module of the hook specifications.
        checks: for each hook that gives something, what its results are checked by.

    Attributes:
        manager: the pluggy manager that holds the plugins.
    """

    def __init__(self, specs: ModuleType, checks: Mapping[str, Check]) -> None:
        self.manager = pluggy.PluginManager(PROJECT)
        self.manager.add_hookspecs(specs)
        self.names = frozenset(name for name in dir(specs) if self.manager.parse_hookspec_opts(specs, name) is not None)
        self._checks = checks
        self._state = threading.local()

    def register(self, plugin: object, info: PluginInfo) -> None:
        """Add a plugin; the one that is added last is called first.

        Raises:
            PluginError: its hooks are unknown, or not as pluggy wants them; or it has none, or is for other versions
                of the plugin API (``ONNXPORT_API``, a number, or several).
        """
        seen = _Implementations(info)
        try:
            wanted = getattr(plugin, "ONNXPORT_API", API_VERSION)
            if API_VERSION not in ((wanted,) if isinstance(wanted, int) else wanted):
                raise ValueError(f"it is for plugin API {wanted}, and onnxport has {API_VERSION}: update one of them")
            for name in dir(plugin):
                self._take(plugin, name, seen)
            if len(vars(seen)) == 1:
                raise ValueError("it has no hooks: mark its functions with @onnxport.hookimpl")
            self.manager.register(seen, info.name)
        except Exception as error:
            self.manager.unregister(name=info.name)
            raise PluginError(f"{type(error).__name__}: {error}") from error

    def _take(self, plugin: object, name: str, seen: _Implementations) -> None:
        """Give pluggy the implementation of that name, if it is one."""
        options = self.manager.parse_hookimpl_opts(plugin, name)
        if options is None:
            if name in self.names and callable(getattr(plugin, name)):
                raise ValueError(f"{name} isn't marked as a hook: decorate it with @onnxport.hookimpl")
            return
        method: Callable[..., Any] = getattr(plugin, name)
        hook = options.get("specname") or name
        if hook not in self.names and not options.get("optionalhook"):
            raise ValueError(f"no hook is named {hook!r}; there are: {', '.join(sorted(self.names))}")
        if isinstance(plugin, type) and next(iter(inspect.signature(method).parameters), "") == "self":
            raise ValueError(f"{plugin.__name__} is a class: give an instance of it, {plugin.__name__}()")
        attribute = hook
        while hasattr(seen, attribute):  # several implementations of one hook, by specname
            attribute += "_"
        guarded = self._guarded(hook, seen, method, options)
        setattr(guarded, f"{PROJECT}_impl", {**options, "specname": hook})
        setattr(seen, attribute, guarded)

    def call(self, hook: str, **arguments: Any) -> Any:
        """Call the hook by pluggy, and return its result. Plugins that fail are recorded and left out."""
        out: list[_Implementations] = []
        outer = vars(self._state).copy()  # a hook may make another call
        self._state.returned = {}
        try:
            while True:
                self._state.guilty = None
                try:
                    return self.manager.subset_hook_caller(hook, out)(**arguments)
                except (Exception, SystemExit) as error:
                    guilty: _Implementations | None = self._state.guilty
                    if guilty is None or guilty in out:
                        raise
                    guilty.info.fail(f"{hook} failed", error)
                    out.append(guilty)
        finally:
            vars(self._state).clear()
            vars(self._state).update(outer)

    # Guards --------------------------------------------------------------------------------------------------------

    def _guarded(
        self, hook: str, seen: _Implementations, method: Callable[..., Any], options: Mapping[str, Any]
    ) -> Callable[..., Any]:
        old_style = bool(options.get("hookwrapper"))
        is_wrapper = old_style or bool(options.get("wrapper"))
        if is_wrapper and inspect.isgeneratorfunction(method):
            guarded = self._wrapper(hook, seen, method, old_style)
        elif is_wrapper:  # as it is: pluggy says that it must be a generator function

            def guarded(*arguments: Any) -> Any:
                return method(*arguments)

        else:
            guarded = self._plain(hook, seen, method)
        return functools.wraps(method)(guarded)

    def _plain(self, hook: str, seen: _Implementations, method: Callable[..., Any]) -> Callable[..., Any]:
        check = self._checks.get(hook)

        def guarded(*arguments: Any) -> Any:
            returned: dict[Any, Any] = vars(self._state).get("returned", {})
            if guarded in returned:
                return returned[guarded]
            try:
                value = method(*arguments)
                value = None if check is None or value is None else check(seen.info, value, frozenset())
            except (Exception, SystemExit):
                self._blame(seen)
                raise
            returned[guarded] = value
            return value

        return guarded

    def _wrapper(
        self, hook: str, seen: _Implementations, method: Callable[..., Any], old_style: bool
    ) -> Callable[..., Any]:
        def guarded(*arguments: Any) -> Generator[None, Any, Any]:
            inner = method(*arguments)
            try:
                next(inner)
            except StopIteration:
                self._blame(seen)
                raise RuntimeError(f"the wrapper {method.__qualname__} doesn't yield: let it yield once") from None
            except (Exception, SystemExit):
                self._blame(seen)
                raise
            thrown: BaseException | None = None
            given: Any = None
            try:
                given = yield
            except (Exception, SystemExit) as error:
                thrown = error
            before = given.get_result() if old_style and given.exception is None else given
            try:
                result = _finished(inner, given, thrown, method)
                if old_style:
                    if given.exception is None:
                        given.force_result(self._checked(hook, seen.info, given.get_result(), before))
                    return None
                result = self._checked(hook, seen.info, result, before)
            except (Exception, SystemExit) as error:
                if error is not thrown:
                    self._blame(seen)
                if old_style:  # raised after the yield, pluggy would warn of it
                    given.force_exception(error)
                    return None
                raise
            if thrown is not None:
                self._state.guilty = None  # the wrapper has dealt with it
            return result

        return guarded

    def _blame(self, seen: _Implementations) -> None:
        """Note the first that failed in this call: what wrappers make of its error is no fault of theirs."""
        if vars(self._state).get("guilty") is None:
            self._state.guilty = seen

    def _checked(self, hook: str, info: PluginInfo, result: Any, before: Any) -> Any:
        """Check the results that a wrapper returns in place of the others'."""
        check = self._checks.get(hook)
        if check is None or result is before:
            return result
        given = before or []
        spec = getattr(self.manager.hook, hook).spec
        if spec is not None and spec.opts.get("firstresult"):
            return None if result is None else check(info, result, _ids([given]))
        if not isinstance(result, (list, tuple)):
            raise TypeError(f"the wrapper returned {result!r}: return the list of results that its yield gave")
        known = {id(value) for value in given}
        kept = _ids(given)
        return [value if id(value) in known else check(info, value, kept) for value in result if value is not None]


def _finished(inner: Generator[None, Any, Any], given: Any, thrown: BaseException | None, method: Any) -> Any:
    """Run a wrapper from its yield to its end; what it returns."""
    try:
        if thrown is not None:
            inner.throw(thrown)
        else:
            inner.send(given)
    except StopIteration as stop:
        return stop.value
    inner.close()
    raise RuntimeError(f"the wrapper {method.__qualname__} yields more than once: let it yield once")


def _ids(results: Any) -> frozenset[int]:
    return frozenset(id(item) for result in results for item in (result if isinstance(result, list) else [result]))
