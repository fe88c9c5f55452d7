"""``onnxport zoo run|diff|page``. Exit codes are those of onnxport: 1 is for ``diff --fail-on``, 2 for a wrong call."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from onnxport.kit import JsonOption, PlainConsole, UsageError, guarded, print_json
from rich.table import Column, Table

zoo = typer.Typer(
    name="zoo", help="Export, verify and compare many models.", no_args_is_help=True, rich_markup_mode=None
)
console, progress = PlainConsole(), PlainConsole(stderr=True)
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")]


@zoo.command()
@guarded
def run(
    path: Annotated[Path, typer.Argument(metavar="ZOO.toml", help="The file with the cases.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder of the run; a run that was stopped goes on.")],
    engine: Annotated[str, typer.Option(help="local: processes of this machine; ray: a Ray cluster.")] = "local",
    jobs: Annotated[int | None, typer.Option("--jobs", "-j", min=1, help="How many processes at a time.")] = None,
    address: Annotated[
        str | None, typer.Option(help="With --engine ray: of the cluster; it starts one if not given.")
    ] = None,
    cache: Annotated[Path | None, typer.Option(help="Results of other runs; 'cache' beside --out by default.")] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Keep and use no results of other runs.")] = False,
    again: Annotated[
        list[str] | None, typer.Option("--again", help="Perform cases with this status again (repeatable).")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Export and verify all cases that have no result yet."""
    from onnxport_zoo.engines import engine_named
    from onnxport_zoo.results import Status
    from onnxport_zoo.running import default_jobs, run_zoo

    statuses = [str(status) for status in Status]
    if unknown := [status for status in again or () if status not in statuses]:
        raise UsageError(f"--again {unknown[0]}: statuses are {', '.join(statuses)}")
    jobs = jobs or default_jobs()
    folder = None if no_cache else cache or out.absolute().parent / "cache"

    def told(record: dict[str, Any], number: int, count: int) -> None:
        where = "" if record["status"] == Status.PASSED else f" at {record['stage'] or 'the start'}"
        progress.print(f"[{number}/{count}] {record['status']}{where}: {record['case']}, {record['seconds']:.1f} s")

    summary = run_zoo(
        path, out, engine_named(engine, jobs, address), jobs=jobs, cache=folder, again=again or (), told=told
    )
    if as_json:
        print_json({"counts": summary.counts(), "performed": summary.performed, "results": summary.records})
        return
    table = Table("case", "status", "stage", Column("message", overflow="fold"), box=None, pad_edge=False)
    for record in summary.records:
        if record["status"] != Status.PASSED:
            message = record["message"].partition("\n")[0][:160]
            table.add_row(record["case"], record["status"], record["stage"], message)
    if table.row_count:
        console.print(table)
    counts = ", ".join(f"{count} {status}" for status, count in summary.counts().items())
    sources = f"{summary.performed} performed, {summary.cached} from the cache, {summary.kept} kept"
    console.print(f"{len(summary.records)} cases: {counts} ({sources})")


@zoo.command()
@guarded
def diff(
    before: RunArgument,
    after: Annotated[Path, typer.Argument(metavar="NEWER", help="The folder of a newer run.")],
    fail_on: Annotated[
        list[str] | None,
        typer.Option(help="Exit with 1 where there is a change of this kind; 'regression' is all that is worse."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare two runs."""
    from onnxport_zoo.diff import KINDS, WORSE, changes

    fatal: set[str] = set()
    for kind in fail_on or ():
        if kind != "regression" and kind not in KINDS:
            raise UsageError(f"--fail-on {kind}: kinds are regression, {', '.join(KINDS)}")
        fatal |= set(WORSE) if kind == "regression" else {kind}
    found = changes(before, after)
    if as_json:
        print_json([change.as_dict() for change in found])
    elif not found:
        console.print("The runs have the same results.")
    else:
        table = Table("change", "case", "before", Column("after", overflow="fold"), box=None, pad_edge=False)
        for change in found:
            table.add_row(change.kind, change.case, change.before, change.after)
        console.print(table)
    if any(change.kind in fatal for change in found):
        raise typer.Exit(1)


@zoo.command()
@guarded
def page(
    folder: RunArgument,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="The page, or a folder for it; by default RUN/index.html. A .md file has tables alone.",
        ),
    ] = None,
    before: Annotated[Path | None, typer.Option(help="An older run: the page tells what changed since.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Write an HTML page with the results of a run: a table, filters, and what is known of each case."""
    from onnxport_zoo.page import write_page

    written = write_page(folder, output or folder, before)
    if as_json:
        print_json({"page": str(written)})
    else:
        console.print(f"{written}: open it in a browser")
