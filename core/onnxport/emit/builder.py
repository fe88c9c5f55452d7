"""``op``: what a translation emits ONNX nodes with.

``op.Name(inputs…, attribute=…)`` makes one node of the default domain at the target opset (:mod:`onnxport.emit.nodes`).
Here is what nodes are emitted for and where they go: the FX node at hand, graphs under construction, functions.
"""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch

from onnxport.emit.frame import Frame, Position
from onnxport.emit.graphs import detach
from onnxport.emit.nodes import Nodes
from onnxport.emit.symbols import Symbols
from onnxport.emit.tensor import Result, Tensor
from onnxport.errors import Unsupported
from onnxport.records.emission import Emission
from onnxport.records.profiles import DEFAULT_PROFILE
from onnxport.text import writable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import torch.fx

    from onnxport.emit.emitter import Walks
    from onnxport.records.profiles import Profile
    from onnxport.records.translations import Translation

_UNCHANGED: Any = object()


class Builder(Nodes):
    """Emits the nodes of one model; see the module's docstring.

    Attributes:
        opset: target opset of the default domain.
        node: the FX node being translated.
        source: the user's node that ``node`` is a decomposed step of, if it is one.
        origin: the translation being run.
        seed: the seed for random nodes that the user wants, or None.
        emission: what plugins teach about ONNX operators and sizes.
        profile: the runtime that the file is for; ``op.call`` takes a domain's version from it.
        frames: the graphs under construction, the innermost last.
    """

    def __init__(
        self,
        opset: int,
        *,
        metadata: str = "full",
        names: dict[Any, str] | None = None,
        seed: int | None = None,
        profile: Profile = DEFAULT_PROFILE,
        emission: Emission | None = None,
        walker: Walks | None = None,
    ) -> None:
        self.opset = opset
        self.emission = Emission() if emission is None else emission
        self.node: torch.fx.Node | None = None
        self.source: torch.fx.Node | None = None
        self.origin: Translation | None = None
        self.frames: list[Frame] = [Frame()]
        self.symbols = Symbols(self, names)
        self.domains: dict[str, int] = {"": opset}
        self.functions: dict[tuple[str, str, str], ir.Function] = {}
        self.seed = seed
        self.profile = profile
        self._metadata = metadata
        self._walker = walker

    def function(
        self,
        domain: str,
        name: str,
        body: Callable[..., Any] | torch.fx.GraphModule,
        *inputs: Any,
        key: Any = None,
        **attributes: Any,
    ) -> Any:
        """A call of a local function of the model, whose body is emitted once.

        Args:
            domain: the function's domain, such as ``"com.example"``.
            name: its name. Where calls need bodies that differ, the later ones are called ``name_2`` and so on.
            body: takes the inputs, and the attributes as references that nodes take as attributes; emits nodes and
                returns one tensor or several. It sees nothing else of the model: no FX node, no outer tensors. A
                GraphModule is translated; its results come as a tuple.
            inputs: tensors, None, or Python numbers and sizes, which the body gets as they are.
            key: what the body depends on besides its inputs and their shapes, where ``body`` isn't the same object
                each time.
            attributes: attributes of the call.
        """
        return self.function_writer.function(domain, name, body, inputs, key, attributes)

    @functools.cached_property
    def function_writer(self) -> Any:
        """What emits the functions of this model, by a plugin.

        Raises:
            Unsupported: no plugin does.
        """
        if self.emission.function_writer is None:
            raise Unsupported("no plugin writes functions: install one, or emit the nodes of the body")
        return self.emission.function_writer(self)

    # The FX node ---------------------------------------------------------------------------------------------------

    @property
    def results(self) -> list[Result]:
        """The results of the FX node, one entry a tensor: their element types and shapes."""
        value = self.node.meta.get("val") if self.node is not None else None
        fakes = value if isinstance(value, (list, tuple)) else [value]
        return [Result(fake, self.symbols.shape(fake)) for fake in fakes if isinstance(fake, torch.Tensor)]

    @property
    def result(self) -> Result:
        """The result of an FX node that has one tensor as its result."""
        return self.results[0]

    def at(self, node: torch.fx.Node | None, *, source: Any = _UNCHANGED, origin: Any = _UNCHANGED) -> Position:
        """While it lasts, what is emitted comes from this FX node; see the attributes of these names."""
        source = self.source if source is _UNCHANGED else source
        return Position(self, node, source, self.origin if origin is _UNCHANGED else origin)

    def serve(self, candidate: Translation) -> None:
        """Note which translation is run for the FX node; it holds until the node is left."""
        self.origin = candidate

    def inline(self, graph_module: torch.fx.GraphModule, *values: Any) -> list[Any]:
        """Translate the nodes of an FX graph here; its flat outputs."""
        return self._walking().inline(graph_module, *values)

    def translate(self, target: str, /, *args: Any, **kwargs: Any) -> Any:
        """Run another operator's translation on values: ``op.translate("aten::relu", value)``.

        Raises:
            Unsupported: none takes them.
        """
        return self._walking().translate(target, *args, **kwargs)

    def _walking(self) -> Walks:
        if self._walker is None:
            raise Unsupported("this builder has no FX graph to walk: use the op that an export gives")
        return self._walker

    # Frames --------------------------------------------------------------------------------------------------------

    @property
    def frame(self) -> Frame:
        """The graph that nodes go to now."""
        return self.frames[-1]

    def unique(self, base: str) -> str:
        """A name that no other value of the model has."""
        base = writable(base)
        names = self.frames[-1].names
        count = names.get(base)
        if count is None:
            names[base] = 1
            return base
        while True:
            name = f"{base}_{count}"
            count += 1
            if name not in names:
                names[base] = count
                names[name] = 1
                return name

    def subgraph(
        self,
        function: Callable[..., Any],
        inputs: Sequence[tuple[Any, ...]] = (),
        name: str = "body",
    ) -> ir.Graph:
        """A graph attribute (a branch, a loop's body). Outer values may be used in it directly.

        Args:
            function: takes the graph's inputs as tensors, returns its outputs.
            inputs: element type and shape of each input; True after them where it is complex.
        """
        prefix = f"{self.node.name}_{name}" if self.node is not None else name
        values = [
            Tensor(self.unique(f"{prefix}_in"), dtype, None if shape is None else ir.Shape(shape), is_complex=any(flag))
            for dtype, shape, *flag in inputs
        ]
        self.frame.complexes += [value for value in values if value.is_complex]
        with self.entered(self.frame.branch()) as frame:
            results = function(*values)
            outputs: list[Tensor] = []
            for result in results if isinstance(results, (list, tuple)) else [results]:
                tensor = self.tensor(result)
                if tensor is None:
                    raise TypeError("a subgraph's output is None: return tensors from its function")
                producer = tensor.producer()
                if producer is None or producer not in frame.nodes or any(tensor is o for o in outputs):
                    shape, flag = tensor.shape, tensor.is_complex
                    tensor = self.Identity(tensor)
                    if flag:
                        tensor = self.as_complex(tensor, shape)
                outputs.append(tensor)
        return ir.Graph(values, outputs, nodes=frame.nodes, name=self.unique(prefix))

    @contextlib.contextmanager
    def entered(self, frame: Frame) -> Iterator[Frame]:
        """While it lasts, nodes go to this frame. What a branch adds to shared caches stays behind it."""
        self.frames.append(frame)
        try:
            yield frame
        finally:
            self.frames.pop()
            if (outer := frame.outer) is not None:
                shared = (outer.constants, outer.initializers, self.domains)
                outer.journal.extend(entry for entry in frame.journal if any(entry[0] is cache for cache in shared))

    def mark(self) -> tuple[int, int, int]:
        """A point that :meth:`rollback` can go back to."""
        frame = self.frame
        return len(frame.nodes), len(frame.journal), len(frame.complexes)

    def rollback(self, mark: tuple[int, int, int]) -> None:
        """Undo everything emitted in the current frame since ``mark``."""
        nodes, journal, complexes = mark
        frame = self.frame
        for node in reversed(frame.nodes[nodes:]):
            detach(node)
        del frame.nodes[nodes:]
        for cache, key in frame.journal[journal:]:
            cache.pop(key, None)
        del frame.journal[journal:]
        del frame.complexes[complexes:]
