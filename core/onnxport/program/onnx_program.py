"""`ONNXProgram`: the result of an export, which can be called, saved, optimized and given other weights."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

import onnx_ir as ir
import torch

from onnxport.emit.weights import TorchTensor
from onnxport.errors import FileError, InputError, OnnxExporterError, WeightError
from onnxport.host.profiles import STANDARD
from onnxport.program import loading, reweight, saving
from onnxport.program.data_file import absolute
from onnxport.text import plain
from onnxport.vocabulary.call_spec import CallSpec
from onnxport.vocabulary.checks import listed, optional, path_argument, takes, wrong
from onnxport.vocabulary.upstream import unset_fake_temporarily

if TYPE_CHECKING:
    import onnx
    import onnxruntime as ort

    from onnxport.host.discovery import Plugins

IN_MEMORY_BYTES = 64 * 1024 * 1024
"""Models with more weights than this reach onnxruntime through a temporary file instead of memory."""

_INITIALIZER = "a function that makes an onnxruntime.InferenceSession of a model's path or bytes"
_IDENTIFIER = re.compile(r"[^\W\d]\w*")


class ComputedValues(dict[str, torch.Tensor]):
    """Tensors by name. As those that torch's exporter gives, they can be unpacked, iterated over and indexed by number.

    ``keys()``, ``values()`` and ``items()`` are a dict's.
    """

    def __iter__(self) -> Iterator[Any]:
        return iter(self.values())

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(key) if isinstance(key, str) else tuple(self.values())[key]


def _plain_kind() -> type[ONNXProgram]:
    return ONNXProgram


class ONNXProgram:
    """An ONNX model that can be called with torch tensors.

    Calls run on onnxruntime; the session opens at the first call. After changing `model` by hand, `release` the
    session. As a context manager it releases the session at the end.

    A deep copy has a model and weights of its own and shares the exported program. A pickled program has the model
    with its weights and knows how it is called, but not the exported program; neither has a session.

    Attributes:
        plugins: those of its export, whose passes `optimize` and `apply_weights` use; None for the installed ones.
        profile: name of the profile that it was written for.
        session_options: an `onnxruntime.SessionOptions` for sessions that are given none; None for the defaults.
        model: the model, as onnx_ir represents it.
        exported_program: the program that was exported; None for a model that was loaded from a file or unpickled.
    """

    _kind = staticmethod(_plain_kind)  # gives the class of a copy by pickle, which may be one that is made at run time

    def __init__(self, model: ir.Model, exported_program: torch.export.ExportedProgram | None = None) -> None:
        if not isinstance(model, ir.Model):
            raise wrong("model", model, "an onnx_ir.Model; ONNXProgram.load(path) opens a file")
        optional("exported_program", exported_program, torch.export.ExportedProgram, "what torch.export.export returns")
        self.model = model
        self.exported_program = exported_program
        self._spec: tuple[object, CallSpec | None] = None, None
        self._path = ""
        self.plugins: Plugins | None = None
        self.profile = STANDARD
        self.session_options: ort.SessionOptions | None = None
        self._session: ort.InferenceSession | None = None
        self._remove_files: Callable[[], object] | None = None

    @property
    def call_spec(self) -> CallSpec | None:
        """The call of the model; None for one that was loaded, whose arguments are its graph inputs."""
        if self.exported_program is not None and self._spec[0] is not self.exported_program:
            self._spec = self.exported_program, CallSpec.of(self.exported_program)
        return self._spec[1]

    @call_spec.setter
    def call_spec(self, spec: CallSpec | None) -> None:
        self._spec = None, spec

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> ONNXProgram:
        """Open a saved model; its arguments are then its graph inputs, in order or by name.

        External data are opened at once, in the model's folder alone: what replaces the files later, and another
        working directory, don't change what was loaded.

        Raises:
            InputError: `path` is no path of a file.
            FileError: the file can't be read or is no ONNX model, or it names data that lie elsewhere or have another
                size; a MissingFileError, which is a FileNotFoundError too, where a file isn't there.
        """
        path = absolute(path_argument("path", path, "the path of an .onnx file"))
        program = cls(loading.load_model(path), None)
        program._path = path
        return program

    # Running ---------------------------------------------------------------------------------------------------

    def __call__(self, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, ...]:
        """Run the model on the arguments of the torch model's forward.

        Returns:
            The forward's outputs, flattened, on the CPU. What carries mutated buffers is left out: see `run`.

        Raises:
            InputError: the arguments are not what was exported.
        """
        return self.run(args, kwargs, all_outputs=False)

    def run(
        self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, *, all_outputs: bool = True
    ) -> tuple[torch.Tensor, ...]:
        """Run the model; with `all_outputs`, also return the new values of mutated buffers and inputs."""
        from onnxport.program import runtime

        feeds = runtime.bind(self.model.graph.inputs, self.call_spec, args, {} if kwargs is None else kwargs)
        if self._session is None:
            self.initialize_inference_session()
        values = [value for value in self.model.graph.outputs if all_outputs or runtime.is_user_output(value)]
        with self._blaming_the_file():
            results = runtime.run(self._session, feeds, [str(value.name) for value in values])  # type: ignore[arg-type]
            return runtime.restore(values, results)

    @contextlib.contextmanager
    def _blaming_the_file(self) -> Iterator[None]:
        """Errors of running a loaded model become a FileError that names the file."""
        try:
            yield
        except Exception as error:  # onnxruntime has a class for each of its status codes, and onnx none
            if isinstance(error, OnnxExporterError) or not self._path:
                raise
            reason = " ".join(str(error).split()) or type(error).__name__
            raise FileError(
                f"The model of {self._path!r} can't be run: {reason[:500]} If it was damaged, get it again; else "
                "export it again, or pass inputs that it takes.",
                path=self._path,
            ) from error

    def call_reference(self, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, ...]:
        """Run the model on onnx's reference evaluator: slow, and independent of onnxruntime."""
        import onnx.reference

        from onnxport.program import runtime

        feeds = runtime.bind(self.model.graph.inputs, self.call_spec, args, kwargs)
        arrays = {name: TorchTensor(tensor).numpy() for name, tensor in feeds.items()}
        values = [value for value in self.model.graph.outputs if runtime.is_user_output(value)]
        with self._blaming_the_file():
            evaluator = onnx.reference.ReferenceEvaluator(self.model_proto)
            results: Any = evaluator.run([str(value.name) for value in values], arrays)
        return runtime.restore(values, [runtime.from_numpy(result) for result in results])

    def compute_values(
        self, value_names: Sequence[str], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> ComputedValues:
        """Compute values inside the graph.

        Args:
            value_names: names of values of the main graph: of inputs, initializers or node outputs.
            args: positional arguments of the forward.
            kwargs: keyword arguments of the forward.

        Returns:
            The tensors by name, in the order asked for. Unpacked, iterated over or indexed by number, they are as
            torch's exporter gives them.

        Raises:
            InputError: a name that the main graph doesn't have, or arguments that are not what was exported.
        """
        from onnxport.program import runtime

        names = listed(value_names)
        if names is None or not all(isinstance(name, str) for name in names):
            raise wrong("value_names", value_names, "a list of names of values of the graph")
        value_names = names
        graph = self.model.graph
        known = {value.name: value for value in graph.inputs} | dict(graph.initializers)
        known |= {value.name: value for node in graph for value in node.outputs}
        unknown = [name for name in value_names if name not in known]
        if unknown:
            raise InputError(
                f"The graph has no value(s) named {unknown}: name inputs, initializers or outputs of nodes.",
                parameter="value_names",
            )
        feeds = runtime.bind(graph.inputs, self.call_spec, args, {} if kwargs is None else kwargs)
        found = {name: feeds[name] for name in value_names if name in feeds}
        wanted = [known[name] for name in dict.fromkeys(value_names) if name not in feeds]
        if wanted:
            with tempfile.TemporaryDirectory(prefix="onnxport-") as folder, self._blaming_the_file():
                opened = runtime.session(self.stage(folder, wanted), options=self.session_options)
                results = runtime.run(opened, feeds, [str(value.name) for value in wanted])
                del opened
            found |= zip((str(value.name) for value in wanted), results)
        values = [known[name] for name in value_names]
        return ComputedValues(zip(value_names, runtime.restore(values, [found[name] for name in value_names])))

    def initialize_inference_session(
        self,
        initializer: Callable[[str | bytes], ort.InferenceSession] | None = None,
        *,
        providers: Sequence[Any] | None = None,
        session_options: ort.SessionOptions | None = None,
    ) -> None:
        """Open the onnxruntime session that calls will use.

        Args:
            initializer: makes a session of a model's path or of its bytes; by default one of onnxruntime's own.
            providers: execution providers for the default initializer; CUDA where available, and CPU, by default.
            session_options: options for the default initializer; by default those of the program.

        Raises:
            InputError: an argument is of another type, `initializer` gives no session, or this onnxruntime has no such
                provider.
        """
        from onnxport.program import runtime

        if initializer is not None and not takes(initializer, b""):
            raise wrong("initializer", initializer, _INITIALIZER)
        self.release()
        folder = tempfile.mkdtemp(prefix="onnxport-")
        # onnxruntime maps the weights: the files must live as long as the session, at the latest as this object
        remove = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        try:
            staged = self.stage(folder)
            chosen = self.session_options if session_options is None else session_options
            if initializer is not None:
                self._session = _made_by(initializer, staged)
            else:
                with self._blaming_the_file():
                    self._session = runtime.session(staged, providers, chosen)
        except BaseException:
            self._session = None
            remove()
            raise
        self._remove_files = remove

    def release(self) -> None:
        """Close the inference session and remove its temporary files."""
        self._session = None
        if self._remove_files is not None:
            self._remove_files()
            self._remove_files = None

    def __enter__(self) -> ONNXProgram:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.release()

    @property
    def inference_session(self) -> ort.InferenceSession | None:
        """The session that calls run on; None before the first call. Can be set to any session on this model."""
        return self._session

    @inference_session.setter
    def inference_session(self, session: ort.InferenceSession | None) -> None:
        if session is not None and not hasattr(session, "run_with_ort_values"):
            raise wrong("inference_session", session, "an onnxruntime.InferenceSession on this model")
        self.release()
        self._session = session

    def stage(self, folder: str, outputs: Sequence[ir.Value] | None = None) -> str | bytes:
        """Serialize the model for another program: to bytes where it is small, else to a file in `folder`."""
        if saving.weight_bytes(self.model) < IN_MEMORY_BYTES:
            return saving.to_bytes(self.model, outputs)
        path = os.path.join(folder, "model.onnx")
        saving.save(self.model, path, external_data=True, outputs=outputs)
        return path

    # The model -------------------------------------------------------------------------------------------------

    @property
    def model_proto(self) -> onnx.ModelProto:
        """The model as `onnx.ModelProto`, with a copy of the weights in it."""
        return ir.serde.serialize_model(self.model)

    def save(
        self,
        destination: str | os.PathLike[str] | IO[bytes],
        *,
        include_initializers: bool = True,
        keep_initializers_as_inputs: bool = False,
        external_data: bool | None = None,
        shard_bytes: int | None = None,
    ) -> None:
        """Save the model. Either the whole of it is at the destination afterwards, or what was there before.

        Args:
            destination: path of the .onnx file, or a binary file open for writing.
            include_initializers: whether the weights are saved.
            keep_initializers_as_inputs: whether the initializers are listed as inputs, which can override them.
            external_data: True: weights go to `<destination>.data`, or, where a model is there that has other data, to
                `<destination>.<digest>.data`; False: into the .onnx file; None: to a data file only if the model is
                larger than 2 GiB.
            shard_bytes: the size from which external data goes on in `<destination>.data_1` and so on.

        Raises:
            TypeError: `external_data` is True and `destination` is not a path.
            SaveError: the file can't be written, or is too large without external data.
            WeightError: the model was exported with fake weights, and `apply_weights` wasn't called.
        """
        saving.save(
            self.model,
            destination,
            include_initializers=include_initializers,
            keep_initializers_as_inputs=keep_initializers_as_inputs,
            external_data=external_data,
            shard_bytes=shard_bytes,
        )

    def optimize(self) -> None:
        """Simplify the graph in place, by the passes that `export(..., optimize=True)` runs, those of plugins included.

        For a model that was loaded or unpickled, the plugins are those that are installed.

        Raises:
            PluginError: a pass of a plugin can't be placed, or fails.
        """
        from onnxport.optimize import pipeline

        passes = self._plugins().ir_passes(self.profile)
        with self._blaming_the_file():
            pipeline.optimize(self.model, passes)
        self.release()

    def _plugins(self) -> Plugins:
        from onnxport.host.discovery import load

        return load() if self.plugins is None else self.plugins

    def apply_weights(
        self, state_dict: Mapping[str, torch.Tensor] | str | os.PathLike[str], *, strict: bool = True
    ) -> None:
        """Replace the weights, those of a fake-tensor export included. Nothing changes if there is an error.

        Args:
            state_dict: tensors by state-dict name; or the path of a checkpoint of them: a `.safetensors` file, the
                `.index.json` of several, or a folder that has either. Its weights stay on disk: `save` reads and
                writes them piece by piece. Names that the exported program has but the graph doesn't use are ignored.
            strict: whether each weight must be given that the model's state dict has and the graph uses; with False,
                those that aren't given stay as they are, such as for a checkpoint of several parts.

        Raises:
            WeightError: lists every weight that is missing, unknown to the model, of another shape or dtype, or that
                was computed into a constant of the graph at export. Or the checkpoint can't be read.
            InputError: `strict` is neither True nor False.
        """
        saving.require_flags(strict=strict)
        if isinstance(state_dict, (str, os.PathLike)):
            path = path_argument("state_dict", state_dict, "a state dict, or a checkpoint's path")
            readers = self._plugins().items("onnxport_checkpoints")
            read = next((weights for reader in readers if (weights := reader(path)) is not None), None)
            if read is None:
                raise WeightError(f"No plugin reads the checkpoint {path!r}: load it, and give the state dict.")
            state_dict = read
        if not isinstance(state_dict, Mapping):
            raise WeightError(f"A {type(state_dict).__name__} is given: give a state dict, or a checkpoint's path.")
        with unset_fake_temporarily():
            reweight.apply_weights(self.model, self.exported_program, state_dict, self._plugins(), strict=strict)  # type: ignore[arg-type]
        self.release()

    def rename_axes(self, rename_mapping: Mapping[str | ir.SymbolicDim, str]) -> None:
        """Rename symbolic dimensions everywhere in the model, expressions such as `2*batch` included.

        Args:
            rename_mapping: new name by present name, or by the dimension itself (`model.graph.inputs[0].shape[0]`).

        Raises:
            InputError: a dimension that the model doesn't have, an invalid name, or one that another dimension has.
        """
        if not isinstance(rename_mapping, Mapping):
            raise wrong("rename_mapping", rename_mapping, "a dict of new names by present names")
        names = {
            str(key.value) if isinstance(key, ir.SymbolicDim) and key.value is not None else key: new
            for key, new in rename_mapping.items()
        }
        values = list(_values(self.model))
        dims = {str(dim.value) for value in values for dim in value.shape or () if isinstance(dim, ir.SymbolicDim)}
        present = dims | {name for dim in dims for name in _IDENTIFIER.findall(dim)}
        for old, new in names.items():
            problem = ""
            if old not in present:
                problem = f"The model has no dimension {old!r}; it has {sorted(present - {'None'})}."
            elif not isinstance(new, str) or not new.isidentifier():
                problem = f"{new!r} is no name for a dimension: use letters, digits and underscores."
            elif (new in present and new not in names) or list(names.values()).count(new) > 1:
                problem = f"The name {new!r} would stand for two dimensions: choose different ones."
            if problem:
                raise InputError(problem, parameter="rename_mapping")

        def renamed(dim: int | ir.SymbolicDim) -> int | ir.SymbolicDim:
            if isinstance(dim, int) or dim.value is None:
                return dim
            text = str(dim.value)
            new = names.get(text) or _IDENTIFIER.sub(lambda match: names.get(match[0], match[0]), text)
            return dim if new == text else ir.SymbolicDim(new)

        for value in values:
            if value.shape is not None and not value.shape.is_static():
                value.shape = ir.Shape([renamed(dim) for dim in value.shape])
        self.release()

    # Copies ------------------------------------------------------------------------------------------------------

    def __copy__(self) -> ONNXProgram:
        copied = type(self)(self.model, self.exported_program)
        copied._spec, copied._path, copied.session_options = self._spec, self._path, self.session_options
        copied.plugins, copied.profile = self.plugins, self.profile
        return copied

    def __deepcopy__(self, memo: dict[int, Any]) -> ONNXProgram:
        from onnxport.program.copies import model_copy

        copied = self.__copy__()
        memo[id(self)] = copied
        copied.model = model_copy(self.model)
        return copied

    def __reduce__(self) -> Any:
        from onnxport.program.copies import pickled

        return pickled(self.model, self.call_spec, type(self)._kind)

    def __str__(self) -> str:
        return plain(self.model)

    def _repr_html_(self) -> Any:
        return self._plugins().hooks.call("onnxport_html", subject=self)

    def __repr__(self) -> str:
        graph = self.model.graph
        described = [[_describe(value) for value in values] for values in (graph.inputs, graph.outputs)]
        weights = saving.weight_bytes(self.model) / 2**20
        return plain(
            f"ONNXProgram(opset {self.model.opset_imports.get('', '?')}, {len(graph)} nodes, "
            f"{len(graph.initializers)} initializers of {weights:.1f} MiB\n"
            f"    inputs:  {', '.join(described[0])}\n    outputs: {', '.join(described[1])}\n)"
        )


def _made_by(initializer: Callable[[str | bytes], Any], staged: str | bytes) -> ort.InferenceSession:
    try:
        session = initializer(staged)
    except (TypeError, ValueError) as error:  # a function that takes something else
        raise wrong("initializer", initializer, _INITIALIZER) from error
    if not hasattr(session, "run_with_ort_values"):
        raise wrong("initializer", initializer, _INITIALIZER)
    return session  # type: ignore[no-any-return]


def _describe(value: ir.Value) -> str:
    dims = "?" if value.shape is None else ", ".join(str(dim) for dim in value.shape)
    return f"{value.name} {value.dtype.name if value.dtype is not None else '?'}[{dims}]"


def _values(model: ir.Model) -> Iterator[ir.Value]:
    """Yield every value of a model, subgraphs and functions included."""
    graphs: list[Any] = [model.graph, *model.functions.values()]
    while graphs:
        graph = graphs.pop()
        yield from graph.inputs
        for node in graph:
            yield from node.outputs
            for attribute in node.attributes.values():
                if isinstance(attribute, ir.Attr) and attribute.type is ir.AttributeType.GRAPH:
                    graphs.append(attribute.value)
                elif isinstance(attribute, ir.Attr) and attribute.type is ir.AttributeType.GRAPHS:
                    graphs.extend(attribute.value)
