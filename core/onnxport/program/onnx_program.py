"""`ONNXProgram`: the result of an export, which can be called, saved, optimized and given other weights."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

import onnx_ir as ir
import torch

from onnxport.errors import FileError, OnnxExporterError
from onnxport.host.discovery import load
from onnxport.records.profiles import STANDARD
from onnxport.text import plain
from onnxport.vocabulary.checks import optional, wrong

if TYPE_CHECKING:
    import onnx
    import onnxruntime as ort

    from onnxport.host.discovery import Plugins


def _plain_kind() -> type[ONNXProgram]:
    return ONNXProgram


class ONNXProgram:
    """An ONNX model that can be called with torch tensors.

    What it does is done by plugins, the built-in one or another's: see the hook `onnxport_actions`.

    Calls run on onnxruntime; the session opens at the first call. After changing `model` by hand, `release` the
    session. As a context manager it releases the session at the end.

    A deep copy has a model and weights of its own and shares the exported program. A pickled program has the model
    with its weights and knows how it is called, but not the exported program; neither has a session.

    Attributes:
        plugins: those of its export, whose passes `optimize` and `apply_weights` use; None for the installed ones.
        profile: name of the profile that it was written for.
        operators: those of the profile's runtime that plugins may still write into it; none of a loaded file.
        session_options: an `onnxruntime.SessionOptions` for sessions that are given none; None for the defaults.
        model: the model, as onnx_ir represents it.
        exported_program: the program that was exported; None for a model that was loaded from a file or unpickled.
        path: the file that it was loaded from; empty for any other.
    """

    _kind = staticmethod(_plain_kind)  # gives the class of a copy by pickle, which may be one that is made at run time

    def __init__(self, model: ir.Model, exported_program: torch.export.ExportedProgram | None = None) -> None:
        if not isinstance(model, ir.Model):
            raise wrong("model", model, "an onnx_ir.Model; ONNXProgram.load(path) opens a file")
        optional("exported_program", exported_program, torch.export.ExportedProgram, "what torch.export.export returns")
        self.model = model
        self.exported_program = exported_program
        self._spec: tuple[object, Any] = None, None
        self.path = ""
        self.plugins: Plugins | None = None
        self.profile, self.operators = STANDARD, frozenset[str]()
        self.session_options: ort.SessionOptions | None = None
        self._session: ort.InferenceSession | None = None
        self._remove_files: Callable[[], object] | None = None

    @property
    def call_spec(self) -> Any:
        """The call of the model; None for one that was loaded, whose arguments are its graph inputs."""
        if self.exported_program is not None and self._spec[0] is not self.exported_program:
            self._spec = self.exported_program, self._plugins().act("call_spec", self.exported_program)
        return self._spec[1]

    @call_spec.setter
    def call_spec(self, spec: Any) -> None:
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
        return load().act("load", cls, path)  # type: ignore[no-any-return]

    def _plugins(self) -> Plugins:
        return load() if self.plugins is None else self.plugins

    def _act(self, name: str, *arguments: Any, **options: Any) -> Any:
        """What the plugins make of an action on this program."""
        return self._plugins().act(name, self, *arguments, **options)

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
        return self._act("run", args, kwargs, all_outputs)  # type: ignore[no-any-return]

    def call_reference(self, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, ...]:
        """Run the model on onnx's reference evaluator: slow, and independent of onnxruntime."""
        return self._act("call_reference", args, kwargs)  # type: ignore[no-any-return]

    def compute_values(
        self, value_names: Sequence[str], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> dict[str, torch.Tensor]:
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
        return self._act("compute_values", value_names, args, kwargs)  # type: ignore[no-any-return]

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
        opened = self._act("open_session", initializer, providers, session_options)
        self._session, self._remove_files = opened

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
        return self._act("stage", folder, outputs)  # type: ignore[no-any-return]

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
        self._act(
            "save",
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
        with blaming_the_file(self.path):
            pipeline.optimize(self.model, passes)
        self.release()

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
        self._act("apply_weights", state_dict, strict, self._plugins())
        self.release()

    def rename_axes(self, rename_mapping: Mapping[str | ir.SymbolicDim, str]) -> None:
        """Rename symbolic dimensions everywhere in the model, expressions such as `2*batch` included.

        Args:
            rename_mapping: new name by present name, or by the dimension itself (`model.graph.inputs[0].shape[0]`).

        Raises:
            InputError: a dimension that the model doesn't have, an invalid name, or one that another dimension has.
        """
        self._act("rename_axes", rename_mapping)
        self.release()

    def fix(self, **sizes: int) -> None:
        """Give dynamic dimensions a size, in place: `program.fix(batch=1, height=640)`.

        Sizes become constants everywhere in the model, and the arithmetic over them is folded away, for engines that
        need fixed shapes. A copy (`copy.deepcopy(program)`) keeps the dynamic model.

        Args:
            sizes: by the dimension's name in the file.

        Raises:
            InputError: a dimension that the model doesn't have, or a size that it can't have.
        """
        self._act("fix", sizes)
        self.release()

    # Copies ------------------------------------------------------------------------------------------------------

    def __copy__(self) -> ONNXProgram:
        copied = type(self)(self.model, self.exported_program)
        copied._spec, copied.path, copied.session_options = self._spec, self.path, self.session_options
        copied.plugins, copied.profile, copied.operators = self.plugins, self.profile, self.operators
        return copied

    def __deepcopy__(self, memo: dict[int, Any]) -> ONNXProgram:
        copied = self.__copy__()
        memo[id(self)] = copied
        copied.model = self._act("copy_model")
        return copied

    def __reduce__(self) -> Any:
        return self._act("reduce", type(self)._kind)

    def __str__(self) -> str:
        return plain(self.model)

    def _repr_html_(self) -> Any:
        return self._plugins().hooks.call("onnxport_html", subject=self)

    def __repr__(self) -> str:
        graph = self.model.graph
        described = [[_describe(value) for value in values] for values in (graph.inputs, graph.outputs)]
        weights = weight_bytes(self.model) / 2**20
        return plain(
            f"ONNXProgram(opset {self.model.opset_imports.get('', '?')}, {len(graph)} nodes, "
            f"{len(graph.initializers)} initializers of {weights:.1f} MiB\n"
            f"    inputs:  {', '.join(described[0])}\n    outputs: {', '.join(described[1])}\n)"
        )


def _describe(value: ir.Value) -> str:
    dims = "?" if value.shape is None else ", ".join(str(dim) for dim in value.shape)
    return f"{value.name} {value.dtype.name if value.dtype is not None else '?'}[{dims}]"


def weight_bytes(model: ir.Model) -> int:
    """Count the bytes of the main graph's initializers."""
    tensors = (value.const_value for value in model.graph.initializers.values())
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)


@contextlib.contextmanager
def blaming_the_file(path: str) -> Iterator[None]:
    """Errors of running a model that was loaded become a FileError that names the file.

    Args:
        path: of the file; empty for a model that wasn't loaded.
    """
    try:
        yield
    except Exception as error:  # onnxruntime has a class for each of its status codes, and onnx none
        if isinstance(error, OnnxExporterError) or not path:
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise FileError(
            f"The model of {path!r} can't be run: {reason[:500]} If it was damaged, get it again; else "
            "export it again, or pass inputs that it takes.",
            path=path,
        ) from error
