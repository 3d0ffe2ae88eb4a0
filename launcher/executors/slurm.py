"""Stages as Slurm jobs: submitted through submitit, told by Slurm, cancelled by scancel.

1. `submit` groups stages into batches, writes each down, gives it to sbatch and records its id.
2. `observe` asks Slurm about all jobs at once and puts what it says into our words.
3. `adopt` finds jobs that a killed launcher submitted and did not record, by their names.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from golf.records import read_json, read_lines
from launcher.errors import LaunchError
from launcher.executors.base import Silence
from launcher.executors.slurm_batches import Batch, make_batches, write_batch, written_batches
from launcher.executors.slurm_ended import EndedJobs
from launcher.executors.slurm_queue import Answer, Job, Queue, array_limit
from launcher.executors.slurm_refusals import fix_of
from launcher.executors.slurm_script import Launch, Needs, body, needs_of, parameters
from launcher.executors.slurm_words import ENDS, STATES, waiting_reason
from launcher.experiment import Experiment, Submission
from launcher.profile import Profile
from launcher.stage import Stage
from launcher.states import Observation, State
from launcher.tails import tail_lines

CANCEL_CALL_S = 60.0
OUTPUT_LINES = 20
OUT_OF_MEMORY_MARKS = ("exceeded memory limit", "oom_kill", "oom-kill", "Out Of Memory")
"""How slurmstepd tells it in a job's output; the job itself may be told as FAILED."""


class SlurmExecutor:
    """Runs the stages of an experiment on a cluster."""

    name = "slurm"
    cancel_every_s = 3.0

    def __init__(self, experiment: Experiment, profile: Profile) -> None:
        self._experiment = experiment
        self._launch = Launch(
            paths=experiment.paths,
            container=experiment.job().container,
            data=experiment.registry["data"],
            profile=profile,
        )
        self._queue = Queue(profile.slurm.poll_seconds, profile.slurm.slowest_poll_seconds)
        self._ended = EndedJobs(experiment.paths.jobs / "ended.jsonl")
        self._released: set[tuple[str, int]] = set()
        self._seen: set[str] = set()

    # ---- submit ----

    def submit(self, stages: Sequence[Stage], lock: int) -> None:
        folder = self._experiment.paths.jobs
        folder.mkdir(exist_ok=True)
        ids = self._under_way(stages)
        num_submitted = 0
        for batch in self._batches(stages, ids):
            write_batch(folder, batch)
            try:
                job_id = self._submit(batch, needs_of(batch, ids))
            except LaunchError as error:
                told = _refusal(error, self._launch.profile, num_submitted, len(stages))
                raise told from error
            for index, stage in enumerate(batch.stages):
                ids[stage.key] = batch.task_id(job_id, index)
                self._record(stage.key, ids[stage.key])
            num_submitted += len(batch.stages)

    def _batches(self, stages: Sequence[Stage], under_way: dict[str, str]) -> tuple[Batch, ...]:
        array_from = self._launch.profile.slurm.array_from
        max_array = array_limit() if len(stages) >= array_from else len(stages)
        return make_batches(self._experiment.paths, stages, array_from, max_array, under_way)

    def _submit(self, batch: Batch, needs: Needs) -> str:
        from launcher.executors.slurm_submit import ScriptExecutor

        wanted = parameters(self._launch, batch, needs)
        executor = ScriptExecutor(self._launch.paths.jobs, wanted, len(batch.stages))
        return executor.submit_script(body(self._launch, batch))

    def _under_way(self, stages: Sequence[Stage]) -> dict[str, str]:
        """Jobs of an earlier submission that these stages wait for."""
        own = {stage.key for stage in stages}
        waited = {key for stage in stages for key in stage.after} - own
        return {
            key: job.job_id
            for key, job in self._experiment.submissions().items()
            if key in waited and not self._is_done(key)
        }

    def _is_done(self, key: str) -> bool:
        status = read_json(self._experiment.paths.stage(key).status) or {}
        return bool(status.get("state") == State.DONE)

    def _record(self, key: str, job_id: str) -> None:
        self._experiment.record_submission(
            Submission(
                stage=key,
                executor=self.name,
                job_id=job_id,
                host=socket.gethostname(),
                submitted_at=time.time(),
            )
        )

    def adopt(self) -> None:
        self._queue.forget()
        answer = self._queue.look(time.time())
        if answer.asked_at is None or answer.problem:
            raise LaunchError(
                f"Slurm does not answer ({answer.problem}); nothing was changed, because jobs of "
                f"{self._experiment.name} may be in its queue. Try again when it is back"
            )
        for key, job in self._unrecorded(answer):
            self._record(key, job.id)

    def _unrecorded(self, answer: Answer) -> Iterator[tuple[str, Job]]:
        """Jobs in the queue that bear our name and stand in no record."""
        names = dict(written_batches(self._experiment.paths.jobs))
        recorded = {line["job_id"] for line in read_lines(self._experiment.paths.submissions)}
        for job in answer.jobs.values():
            if job.name in names and job.id not in recorded:
                keys = names[job.name]
                index = int(job.id.partition("_")[2] or 0)
                yield keys[index], job

    # ---- observe ----

    def observe(self, now: float) -> dict[str, Observation]:
        ids = {key: job.job_id for key, job in self._experiment.submissions().items()}
        if not self._seen.issuperset(ids.values()):
            # Submitted since the last question, by us or in another shell.
            self._seen.update(ids.values())
            self._queue.forget()
        answer = self._queue.look(now)
        for key, job in self._unrecorded(answer):
            ids.setdefault(key, job.id)
        missing = [
            job_id
            for key, job_id in ids.items()
            if job_id not in answer.jobs and not self._ended.get(job_id) and not self._is_done(key)
        ]
        told = self._queue.gone(missing) if missing and not answer.problem else {}
        known = {**told, **answer.jobs}
        self._release(ids, answer)
        # A job that is requeued passes through states that look like an end; squeue shows it again.
        self._ended.keep(known[job_id] for job_id in ids.values() if job_id in known)
        return {
            key: self._observation(
                key, job_id, known.get(job_id) or self._ended.get(job_id), answer, now
            )
            for key, job_id in ids.items()
        }

    def silence(self) -> Silence | None:
        answer = self._queue.last
        if not answer.problem:
            return None
        return Silence(reason=f"Slurm does not answer: {answer.problem}", heard_at=answer.asked_at)

    def _release(self, ids: Mapping[str, str], answer: Answer) -> None:
        """Let jobs start that were put back into the queue and are held there.

        Slurm holds a requeued job back for as long as its old credentials are valid
        (`cred_expire` of slurm.conf, two minutes). It sets that time when the last process of the
        job has ended, so the batch script cannot lift it; whoever looks next can. Where nobody
        looks, or a site forbids it, the job starts two minutes later.
        """
        held = []
        for key, job_id in ids.items():
            job = answer.jobs.get(job_id)
            if job is None or job.state != "PENDING" or job.reason != "BeginTime":
                continue
            attempt = int(self._last_note(key).get("attempt", 0))
            if attempt and (job_id, attempt) not in self._released:
                self._released.add((job_id, attempt))
                held.append(job_id)
        if held:
            self._queue.release(held)

    def _observation(
        self, key: str, job_id: str, job: Job | None, answer: Answer, now: float
    ) -> Observation:
        seen_at = answer.asked_at if answer.asked_at is not None else now
        unanswered = f"; Slurm does not answer now: {answer.problem}" if answer.problem else ""
        if job is None and unanswered:
            return Observation(
                state=State.WAITING,
                evidence=f"job {job_id}{unanswered}",
                seen_at=seen_at,
                rules=True,
            )
        if job is None:
            text = f"job {job_id} is no longer in Slurm's queue"
            return Observation(
                state=State.LOST, evidence=text, seen_at=seen_at, rules=True, reason=text
            )
        state = STATES.get(job.state, State.RUNNING)
        where = f" on {job.nodes}" if job.nodes else ""
        return Observation(
            state=State.SKIPPED if job.reason.startswith("DependencyNever") else state,
            evidence=f"job {job_id} {job.state}{where} ({job.source}){unanswered}",
            seen_at=seen_at,
            rules=True,
            reason=self._reason(key, job, seen_at),
            # A waiting job's stage may have begun to speak since Slurm was asked.
            began_at=seen_at if state is State.WAITING else job.started_at,
        )

    def _reason(self, key: str, job: Job, seen_at: float) -> str:
        if job.reason.startswith("DependencyNever"):
            return f"{', '.join(self._experiment.stage(key).after)} did not succeed"
        if STATES.get(job.state) is State.WAITING:
            return self._again(key, seen_at) + waiting_reason(job.reason)
        if not job.is_over or job.state == "COMPLETED":
            return ""
        last = self._last_note(key)
        if last.get("event") == "gave_up":
            return f"gave up after {last['attempt']} attempts (slurm.max_attempts)"
        if last.get("event") == "setup_failed":
            return "a setup line of the profile failed; golf-launch logs --jobs shows which"
        if job.state in ENDS:
            return ENDS[job.state]
        output = tail_lines(self._output(job), OUTPUT_LINES)
        if any(mark in line for line in output for mark in OUT_OF_MEMORY_MARKS):
            return ENDS["OUT_OF_MEMORY"]
        # Ours begin with a time stamp; srun's tell that something failed, not what.
        last_words = [line for line in output if not line.startswith(("[", "srun: "))][-1:]
        return ": ".join([f"Slurm says {job.state} ({job.reason})", *last_words])

    def _output(self, job: Job) -> Path:
        """What the job printed outside the stage's own log."""
        label = job.name.rpartition(":")[2]
        return self._experiment.paths.jobs / f"{label}-{job.id}.out"

    def _again(self, key: str, seen_at: float) -> str:
        """Which attempt a job waits for, if it ran before we looked at the queue."""
        last = self._last_note(key)
        ran_before = bool(last) and float(last["time"]) < seen_at - 1
        return f"attempt {int(last['attempt']) + 1} " if ran_before else ""

    def _last_note(self, key: str) -> dict[str, int | str]:
        """What the batch script last wrote; nothing before its first start."""
        lines = read_lines(self._experiment.paths.stage(key).root / "attempts.jsonl")
        return lines[-1] if lines else {}

    # ---- cancel ----

    def cancel(self, stages: Sequence[str]) -> None:
        submissions = self._experiment.submissions()
        ids = [submissions[key].job_id for key in stages if key in submissions]
        self._queue.forget()
        if not ids:
            return
        if shutil.which("scancel") is None:
            raise LaunchError("scancel is not on this machine; cancel from a login node")
        done = subprocess.run(
            ["scancel", *ids],
            capture_output=True,
            text=True,
            check=False,
            timeout=CANCEL_CALL_S,
        )
        if done.returncode != 0 and "Invalid job id" not in done.stderr:
            raise LaunchError(f"scancel failed: {done.stderr.strip()}")


def _refusal(
    error: LaunchError, profile: Profile, num_submitted: int, num_wanted: int
) -> LaunchError:
    """sbatch's words, what mends it, and what the same submission has left in the queue."""
    stays = (
        f"{num_submitted} of {num_wanted} stages are in the queue and stay there, "
        "golf-launch resume submits the others"
        if num_submitted
        else "nothing was submitted"
    )
    return LaunchError(
        "; ".join(filter(None, [str(error), fix_of(str(error), profile.slurm), stays]))
    )
