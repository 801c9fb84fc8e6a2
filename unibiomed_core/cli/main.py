"""The command line: ``unibiomed report | segment | ask | roi | ground | models | info``.

Torch is loaded only once an image was read and the model is needed, so that help and wrong input answer at once.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unibiomed_core.cli import terminal
from unibiomed_core.cli.study import (
    Offline,
    Study,
    StudyOptions,
    answer_slice,
    answer_volume,
    follow,
    show,
    stoppable,
    wording,
)
from unibiomed_core.cli.terminal import EXIT_PARTLY, EXIT_STOPPED, guarded
from unibiomed_core.types import NOTICE, Prompt, Region
from unibiomed_core.updates import CancelToken

if TYPE_CHECKING:
    from unibiomed_core.engine.engine import Engine

PlanName = Annotated[
    str,
    typer.Option(
        "--plan", metavar="NAME", help="Which slices: all, coarse-to-fine, key-slices, propagate, published-video."
    ),
]
SmoothMm = Annotated[
    float, typer.Option("--smooth-mm", metavar="MM", help="Smooth findings in 3D by so much; 0 is off.")
]
LeastPresence = Annotated[
    float, typer.Option("--least-presence", metavar="P", help="Leave out findings with a presence below this, 0 to 1.")
]
MinAreaMm2 = Annotated[
    float | None,
    typer.Option("--min-area-mm2", metavar="MM2", help="Leave out mask pieces of a slice that are smaller."),
]
NoLink = Annotated[bool, typer.Option("--no-link", help="Keep the pieces of each slice findings of their own.")]
SliceNumber = Annotated[
    int | None, typer.Option("--slice", metavar="K", help="As reports and napari's slider count it, from 0.")
]
Exact = Annotated[
    bool, typer.Option("--prompt-exact", help="Send the words as they are; <image>, newlines and special tokens count.")
]
MaxNewTokens = Annotated[int, typer.Option(metavar="N", help="Longest answer in tokens.")]

app = typer.Typer(
    name="unibiomed", help=f"Grounded biomedical image interpretation. {NOTICE}", no_args_is_help=True,
    add_completion=False, rich_markup_mode=None,
)  # fmt: skip
models_app = typer.Typer(help="List models, or download one.", rich_markup_mode=None)
app.add_typer(models_app, name="models")


def with_study_options(command: Callable[..., None]) -> Callable[..., None]:
    """A command with all of :class:`StudyOptions` as arguments and options, which it gets as its first argument.

    In the order of the usage line: the image, what the command needs, the folder, what it offers, the other options.
    """
    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
    path, out_dir, *others = inspect.signature(StudyOptions, eval_str=True).parameters.values()
    needed = [one for one in own if one.default is one.empty]
    offered = [one for one in own if one.default is not one.empty]

    @functools.wraps(command)
    def run(**given: Any) -> None:
        job = StudyOptions(**{one.name: given.pop(one.name) for one in (path, out_dir, *others)})
        command(job, **given)

    run.__signature__ = inspect.Signature([path, *needed, out_dir, *offered, *others])  # type: ignore[attr-defined]
    return run


def _end(all_known: bool, cancel: CancelToken | None = None) -> None:
    if cancel is not None and cancel.cancelled:
        raise typer.Exit(EXIT_STOPPED)
    if not all_known:
        raise typer.Exit(EXIT_PARTLY)


@app.command()
@guarded
@with_study_options
def report(
    job: StudyOptions,
    targets: Annotated[list[str] | None, typer.Option(metavar="A,B", help="What to look for; may be repeated.")] = None,
    plan: PlanName = "all",
    every: Annotated[int, typer.Option(metavar="N", help="Examine every Nth slice.")] = 1,
    smooth_mm: SmoothMm = 0.0,
    least_presence: LeastPresence = 0.0,
    min_area_mm2: MinAreaMm2 = None,
    no_link: NoLink = False,
) -> None:
    """Search a whole image; write findings with measurements, a label image and a page to read.

    Ctrl-C stops after the current slice and writes what was found until then. Targets that the model does not know
    are told and left out; the exit code is 3 then.
    """
    from unibiomed_core.engine.volume import plans
    from unibiomed_core.engine.volume.request import RunRequest
    from unibiomed_core.io.export import report_names, write_report

    plans.find(plan)
    study = job.open(report_names)
    names = [name.strip() for value in targets or () for name in value.split(",") if name.strip()]
    engine = job.engine()
    study = study.with_modality(engine)
    request = RunRequest.segment(
        *names, plane=study.plane, plan=plan, every=every, window=study.window, smooth_mm=smooth_mm,
        least_presence=least_presence, min_area_mm2=min_area_mm2, link_slices=not no_link,
    )  # fmt: skip
    with stoppable() as cancel:
        stream = engine.run(study.volume, request, cancel=cancel)
        result, _ = follow(stream)
        files = write_report(result, study.volume, study.window, job.out_dir, overwrite=job.overwrite)
    show(result.narrative, files)
    _end("unknown_targets" not in result.settings, cancel)


@app.command()
@guarded
@with_study_options
def segment(
    job: StudyOptions,
    targets: Annotated[list[str], typer.Argument(metavar="TARGET...", help="What to segment, e.g. liver.")],
    slice_number: SliceNumber = None,
    exact: Exact = False,
    max_new_tokens: MaxNewTokens = 256,
) -> None:
    """One mask for each target: of a picture, of all slices of a volume, or of one slice.

    With --prompt-exact each TARGET is the whole question. Targets that the model does not know are told and left out;
    the exit code is 3 then, and 2 where none is left.
    """
    from unibiomed_core.tasks import check_text

    what = "question" if exact else "target"
    wanted = list(dict.fromkeys(check_text(target, what) for target in targets))
    study = job.open()
    prompts = [
        Prompt("segment", question=name, exact=True, max_new_tokens=max_new_tokens)
        if exact
        else Prompt("segment", name)
        for name in wanted
    ]
    settings = {"command": "segment", "prompts": wanted, "exact": exact, "max_new_tokens": max_new_tokens}
    if study.volume.is_2d or slice_number is not None:
        chosen = slice_number is not None
        _end(answer_slice(job, study, study.index(slice_number), lambda *_: prompts, settings, chosen=chosen))
    else:
        cancel, all_known = answer_volume(job, study, prompts, settings)
        _end(all_known, cancel)


@app.command()
@guarded
@with_study_options
def ask(
    job: StudyOptions,
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="In your own words.")],
    slice_number: SliceNumber = None,
    exact: Exact = False,
    max_new_tokens: MaxNewTokens = 256,
) -> None:
    """Ask about a picture or one slice of a volume (the middle one unless --slice names another).

    What the answer marks with [SEG] is segmented too.
    """
    from unibiomed_core.tasks import check_text

    prompt = Prompt("vqa", question=check_text(question, "question"), exact=exact, max_new_tokens=max_new_tokens)
    study = job.open()
    settings = {"command": "ask", "prompts": [question], "exact": exact, "max_new_tokens": max_new_tokens}
    answer_slice(job, study, study.index(slice_number), lambda *_: [prompt], settings, chosen=slice_number is not None)


@app.command()
@guarded
@with_study_options
def roi(
    job: StudyOptions,
    box: Annotated[
        tuple[int, int, int, int],
        typer.Option(metavar="X0 Y0 X1 Y1", help="Corners in pixels, both included, of the slice as it is displayed."),
    ],
    slice_number: SliceNumber = None,
    describe: Annotated[bool, typer.Option("--describe", help="Describe the region instead of naming it.")] = False,
    question: Annotated[str, typer.Option(help="A question of your own about the region, instead.")] = "",
    exact: Exact = False,
    max_new_tokens: MaxNewTokens = 256,
) -> None:
    """Name or describe what lies in a box.

    A picture keeps its file's pixels. A volume's slice is displayed as radiologists see it: axial with anterior up
    and the patient's right on the left; coronal and sagittal with superior up.
    """
    study = job.open()
    index = study.index(slice_number)
    task = "roi_describe" if describe else "roi_class"
    region = Region(*box, study.plane, index)

    def prompts(engine: Engine, study: Study) -> list[Prompt]:
        asked = question or (wording(engine, task) if exact else "")
        return [Prompt(task, question=asked, region=region, exact=exact, max_new_tokens=max_new_tokens)]

    settings = {"command": "roi", "prompts": [question] if question else [], "exact": exact, "task": task}
    settings |= {"box_x0_y0_x1_y1_px": list(box), "max_new_tokens": max_new_tokens}
    answer_slice(job, study, index, prompts, settings, chosen=slice_number is not None)


@app.command()
@guarded
@with_study_options
def ground(
    job: StudyOptions,
    sentence: Annotated[str, typer.Argument(metavar="SENTENCE", help="Plain, or with <p> ... </p> [SEG] tags.")],
    question: Annotated[str, typer.Option(help="The question it answers; the default is the report's.")] = "",
    slice_number: SliceNumber = None,
    exact: Exact = False,
    max_new_tokens: MaxNewTokens = 256,
) -> None:
    """Segment what a given text names, on a picture or one slice (the middle one unless --slice names another).

    The text is read to its end; --max-new-tokens bounds only what a model writes.
    """
    from unibiomed_core.tasks import check_text, tag_phrases

    check_text(sentence, "sentence")
    if question:
        check_text(question, "question")
    study = job.open()

    def prompts(engine: Engine, study: Study) -> list[Prompt]:
        asked = question or (wording(engine, "report") if exact else "")
        learnt = engine.info.targets.get(study.volume.modality, ())
        text = sentence if exact else tag_phrases(sentence, study.volume.modality, learnt)
        return [Prompt("ground", question=asked, answer=text, exact=exact, max_new_tokens=max_new_tokens)]

    settings = {"command": "ground", "prompts": [question] if question else [], "answer": sentence, "exact": exact}
    answer_slice(job, study, study.index(slice_number), prompts, settings, chosen=slice_number is not None)


@models_app.callback(invoke_without_command=True)
@guarded
def models(context: typer.Context) -> None:
    """Names, sizes, licences, targets, and where they are. Opens no network connection."""
    from unibiomed_core import diagnostics

    if context.invoked_subcommand is not None:
        return
    for row in diagnostics.models():
        terminal.say(f"{row.name}: {row.about}")
        terminal.say(f"  size: {row.size}\n  licence: {row.licence}")
        terminal.say(f"  where: {row.folder or f'not here; unibiomed models download {row.name}'}")
        for name, targets in row.targets.items():
            terminal.say(f"  {name}: {', '.join(targets)}")
        if not row.targets:
            terminal.say("  targets: free text")
    terminal.say("A folder with weights, or a hub id (OWNER/NAME) that was downloaded, can be given to --model too.")


@models_app.command()
@guarded
def download(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name of the list, or a hub id OWNER/NAME.")],
    offline: Offline = False,
) -> None:
    """Fetch a model. Files that arrived whole are kept when the same command is run again."""
    from unibiomed_core.model import hub

    with terminal.steps("MB") as step:
        folder = hub.download(name, lambda done, total: step(done // 10**6, total // 10**6, None), offline=offline)
    terminal.say(f"{name} is in {folder}")


@app.command()
@guarded
def info() -> None:
    """Versions, devices, weights found, and what is known to be broken."""
    from unibiomed_core import diagnostics

    for name, version in diagnostics.versions().items():
        terminal.say(f"{name}: {version}")
    try:
        for device in diagnostics.devices():
            terminal.say(f"device {device}")
    except (ImportError, OSError) as error:  # info is what people run when torch does not load
        terminal.show_error("PyTorch does not load", found=str(error).splitlines()[0], action="Install torch again.")
    for row in diagnostics.models():
        if row.folder is not None:
            terminal.say(f"weights {row.name}: {row.size} in {row.folder}")
    problem = diagnostics.torchvision_problem()
    if problem:
        terminal.show_error("Broken torchvision", found=problem, action=diagnostics.TORCHVISION_CURE)
    terminal.say(NOTICE)


def main() -> None:
    """The console command."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # File names need not be text in the terminal's encoding; showing them must not be an error.
            stream.reconfigure(errors="backslashreplace")
    app()


if __name__ == "__main__":
    main()
