"""What argilla-server wants other processes for, inside its own: Redis, the job queue; and needless work."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from types import MethodType
from typing import Any


def use_memory_redis() -> None:
    """Give argilla-server an in-memory Redis; call before anything of it is imported."""
    import fakeredis
    import redis

    memory = fakeredis.FakeServer()

    def from_url(url: str, **options: Any) -> Any:
        return fakeredis.FakeStrictRedis(server=memory)

    redis.from_url = from_url


def run_jobs_in_process() -> None:
    """Make both job queues run a job at once, here; its state goes to Redis as ever, for those who ask for it.

    With no worker the server would take a change of the overlap, answer 200 and do nothing.
    """
    from argilla_server.jobs.queues import DEFAULT_QUEUE, HIGH_QUEUE
    from rq.job import Job, JobStatus

    running: set[asyncio.Task[None]] = set()

    async def perform(job: Job) -> None:
        try:
            if str(job.func_name).endswith("update_dataset_records_status_job"):  # touches the database only
                await job.func(*job.args, **job.kwargs)
            else:  # waits for others by blocking calls, which may call this server back: a thread and loop of its own
                await asyncio.to_thread(asyncio.run, job.func(*job.args, **job.kwargs))
            job.set_status(JobStatus.FINISHED)
        except Exception as error:
            job.set_status(JobStatus.FAILED)
            print(f"job {job.func_name} failed: {error!r}", file=sys.stderr, flush=True)

    def enqueue(self: Any, job: Job, pipeline: Any = None, at_front: bool = False) -> Job:
        job.origin = self.name
        job.set_status(JobStatus.STARTED)
        job.save()
        task = asyncio.get_running_loop().create_task(perform(job))
        running.add(task)
        task.add_done_callback(running.discard)
        return job

    for queue in (DEFAULT_QUEUE, HIGH_QUEUE):
        queue.enqueue_job = MethodType(enqueue, queue)


def reuse_type_adapters() -> None:
    """Keep pydantic's adapters: argilla-server builds one per value it validates, some 2 ms each."""
    import argilla_server.models.database as models

    make, made = models.TypeAdapter, {}

    def adapter(kind: Any) -> Any:
        if id(kind) not in made:
            made[id(kind)] = make(kind)
        return made[id(kind)]

    models.TypeAdapter = adapter


def skip_unheard_events() -> None:
    """Build no webhook event while nobody has a webhook: argilla-server loads a whole dataset anew for each one."""
    from argilla_server.models import Webhook
    from argilla_server.webhooks.v1 import datasets, records, responses
    from sqlalchemy import select

    class Unheard:
        async def notify(self, db: Any) -> list[Any]:
            return []

    def heard_only(build: Any) -> Any:
        async def build_if_heard(db: Any, kind: Any, subject: Any) -> Any:
            if await db.scalar(select(Webhook.id).where(Webhook.enabled).limit(1)) is None:
                return Unheard()
            return await build(db, kind, subject)

        return build_if_heard

    records.build_record_event = heard_only(records.build_record_event)
    responses.build_response_event = heard_only(responses.build_response_event)
    datasets.build_dataset_event = heard_only(datasets.build_dataset_event)


def end_with_parent() -> None:
    """End this process when standard input closes, as it does however the process that started us ends."""

    def watch() -> None:
        while sys.stdin.buffer.read(1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
