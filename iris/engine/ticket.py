"""One ticket: the job it stands for, how much work that is, and what came of it."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field

from torch import Tensor

from iris.engine.denoiser import Row
from iris.engine.loader import Components
from iris.engine.work import Work
from iris.jobs import EditJob, Job, Outcome, Picture, Usage


def _new_outcome() -> Future[Outcome]:
    outcome: Future[Outcome] = Future()
    outcome.set_running_or_notify_cancel()  # whoever waits cannot cancel it, only `Engine.cancel`
    return outcome


@dataclass(slots=True)
class Entry:
    """Everything the engine knows of one ticket."""

    job: Job
    admitted_at_s: float
    predicted_s: float  # until it is finished, as it was admitted
    outcome: Future[Outcome] = field(default_factory=_new_outcome)
    prompt: Tensor | None = None  # while it is encoded and the images are not
    row: Row | None = None  # set when prompt and images are encoded
    handed_out_at_s: float | None = None  # set when the ticket goes to the front
    started_at_s: float | None = None  # set at the first step
    finished_at_s: float | None = None  # set with the outcome
    is_awaited: bool = False  # set when somebody collects it

    @property
    def kind(self) -> str:
        return "edit" if isinstance(self.job, EditJob) else "generate"


def work_of(job: Job, ticket_id: str, model: Components, now_s: float) -> Work:
    """How much work a job is, in the scheduler's terms."""
    canvas = model.canvas(job)
    read = model.image_canvases(job)
    runs = not is_unchanged(job)
    return Work(
        ticket_id=ticket_id,
        tokens=model.text_tokens + sum(one.grid.tokens for one in (canvas, *read)),
        passes=2 if job.guidance_scale > 1.0 else 1,
        steps_left=job.num_inference_steps if runs else 0,
        pixels=canvas.pixels,
        image_pixels=sum(one.pixels for one in read) if runs else None,
        admitted_at_s=now_s,
        deadline_at_s=now_s + job.deadline_s,
        owner=job.owner,
        decode_left=1.0 if runs else 0.0,
    )


def is_unchanged(job: Job) -> bool:
    """Strength 0 asks for the source itself: nothing is run, and the VAE would only blur it."""
    return isinstance(job, EditJob) and job.strength == 0.0


def unchanged(job: EditJob) -> Picture:
    """The picture of a job for which nothing is run."""
    return Picture(job.images[0], job.seed, Usage(0, 0, 0), queue_s=0.0, inference_s=0.0)
