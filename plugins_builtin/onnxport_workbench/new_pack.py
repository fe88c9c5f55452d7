"""``onnxport new-pack``: a distribution with one operator, its translation, tests and a page, to start from."""

from __future__ import annotations

import keyword
import re
from pathlib import Path
from string import Template

from onnxport_workbench.cli_options import UsageError

#: A distribution's name as the packaging guide has it: letters, digits, and single separators inside.
_NAME = re.compile(r"[A-Za-z](?:[A-Za-z0-9]|[-_.](?=[A-Za-z0-9]))*")

FILES = {
    "pyproject.toml": """\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "$distribution"
version = "0.1.0"
description = "onnxport plugin: the operators of $namespace."
readme = "README.md"
requires-python = ">=3.10"
dependencies = ["onnxport", "torch"]

[project.optional-dependencies]
test = ["pytest"]

# onnxport finds the pack by this entry point. Its name is what plugins=[...] and --plugin take.
[project.entry-points.onnxport]
$namespace = "$package"

[tool.setuptools]
packages = ["$package"]

[tool.setuptools.package-data]
$package = ["py.typed"]

[tool.pytest.ini_options]
testpaths = ["tests"]
""",
    "README.md": """\
# $distribution

An [onnxport](https://pypi.org/project/onnxport) plugin: it exports models with the operators of `$namespace` to ONNX.

```console
$$ pip install .
$$ onnxport plugins                        # lists the pack, and what is wrong with it
$$ onnxport explain $namespace::scaled_add
```

Nothing else has to be done: `onnxport.export(model, args)` uses every pack that is installed.

| operator | translation | opset |
| --- | --- | --- |
| `$namespace::scaled_add` | `Add` and `Mul` | any |

## Develop it

```console
$$ pip install -e '.[test]'
$$ pytest
```

- `$package/ops.py` has the operators. Take it out where another library has them.
- `$package/translations.py` has the translations: functions that write ONNX nodes by `op.Name(...)`.
- `$package/__init__.py` has the hooks. It is imported at the first export of any model, so it imports no large library.
- `tests/` compares each translation with eager torch, by `onnxport.testing`.
""",
    "$package/py.typed": "",
    "$package/__init__.py": '''\
"""The onnxport plugin of $namespace: its hooks."""

from __future__ import annotations

from onnxport import Translation, collect, hookimpl

#: Versions of onnxport's plugin API that the pack works with; see onnxport.API_VERSION.
ONNXPORT_API = $api


@hookimpl
def onnxport_translations() -> list[Translation]:
    from $package import translations

    return collect(translations)
''',
    "$package/ops.py": '''\
"""The operators of $namespace. Importing this module registers them with torch."""

from __future__ import annotations

import torch


@torch.library.custom_op("$namespace::scaled_add", mutates_args=())
def scaled_add(x: torch.Tensor, y: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
    """``x + scale * y``, of one dtype; shapes are broadcast."""
    return x + scale * y


@scaled_add.register_fake
def _(x: torch.Tensor, y: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
    return torch.empty(torch.broadcast_shapes(x.shape, y.shape), dtype=x.dtype, device=x.device)
''',
    "$package/translations.py": '''\
"""Translations of the operators of $namespace. Operators are named by strings: their library isn't imported here."""

from __future__ import annotations

from onnxport import Builder, Tensor, Unsupported, translation


@translation("$namespace::scaled_add")
def scaled_add(op: Builder, x: Tensor, y: Tensor, scale: float = 1.0) -> Tensor:
    """``x + scale * y``.

    Arguments have the names that the operator's schema gives them. Numbers become constants of the tensor's dtype.
    """
    if x.dtype != y.dtype:
        raise Unsupported(f"x is {x.dtype} and y {y.dtype}: convert one of them in the model")
    return op.Add(x, y if scale == 1 else op.Mul(y, scale))
''',
    "tests/test_translations.py": '''\
"""Every translation against eager torch, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from onnxport import testing

import $package.ops  # noqa: F401  (registers the operators)
from $package import translations

OPS = torch.ops.$namespace


@pytest.mark.parametrize("scale", [1.0, 0.5, -2.0, 0.0])
@pytest.mark.parametrize("shapes", [((2, 3), (2, 3)), ((2, 3), (3,)), ((), (2,)), ((0, 3), (1, 3))])
def test_scaled_add(shapes: tuple[tuple[int, ...], ...], scale: float) -> None:
    (case,) = testing.compare_with_eager(
        lambda x, y: OPS.scaled_add(x, y, scale), [torch.randn(shape) for shape in shapes]
    )
    case.expect_served("$namespace::scaled_add", by=translations.scaled_add)


def test_dtypes_opsets_and_sizes() -> None:
    class Model(torch.nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return OPS.scaled_add(x, y, 0.5)

    testing.compare_with_eager(
        Model(),
        (torch.randn(2, 3), torch.randn(2, 3)),
        dtypes=[torch.float32, torch.float64, torch.float16],
        opsets=[18, 20],
        dynamic_shapes={"x": {0: "rows"}, "y": {0: "rows"}},
        other_inputs=[((torch.randn(rows, 3), torch.randn(rows, 3)), None) for rows in (1, 5)],
    )


def test_two_dtypes_are_refused() -> None:
    model = testing.as_module(lambda x, y: OPS.scaled_add(x, y))
    args = (torch.randn(2), torch.randn(2, dtype=torch.float64))
    testing.expect_refused(model, args, "$namespace::scaled_add", reason="convert one of them")


def test_the_page_names_every_operator() -> None:
    from onnxport import collect

    page = Path(__file__).parents[1].joinpath("README.md").read_text("utf-8")
    assert not [record.name for record in collect(translations) if f"`{record.name}`" not in page]
''',
    ".gitignore": """\
__pycache__/
*.egg-info/
build/
dist/
""",
}
"""The files of a pack, as templates: ``$$package`` is the importable package, ``$$namespace`` that of the operators."""


def write_pack(name: str, folder: Path | None = None) -> list[Path]:
    """Write a new pack.

    Args:
        name: of the library whose operators it is for, such as ``mylib``.
        folder: where to write it; by default ``onnxport-<name>`` in the working directory.

    Returns:
        The files.

    Raises:
        UsageError: the name can't be that of a distribution, or the folder isn't empty.
    """
    from onnxport import API_VERSION

    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} is no name for a pack: use letters, digits and dashes, such as mylib or my-lib")
    namespace = re.sub(r"[-.]", "_", name).lower().removeprefix("onnxport_")
    if not namespace.isidentifier() or keyword.iskeyword(namespace):
        raise UsageError(f"{namespace!r} can't be the namespace of operators: choose a name that Python can import")
    distribution = f"onnxport-{namespace.replace('_', '-')}"
    target = Path(distribution) if folder is None else folder
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError(f"{target} is there already: name another folder with --folder, or take it away")
    words = {
        "distribution": distribution,
        "package": f"onnxport_{namespace}",
        "namespace": namespace,
        "api": str(API_VERSION),
    }
    written = []
    for path, text in FILES.items():
        file = target / Template(path).substitute(words)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(Template(text).substitute(words), "utf-8")
        except OSError as error:
            raise UsageError(f"{file} can't be written: {error}") from error
        written.append(file)
    return written


__all__ = ["FILES", "write_pack"]
