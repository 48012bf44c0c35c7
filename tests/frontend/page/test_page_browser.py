"""The page in a real browser, on a real fleet whose processes are killed while it is looked at."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, ConsoleMessage, Page, Route, async_playwright, expect

from millrace.queue import JobRef, ModelVersion, Result
from millrace.v1.generation_pb2 import GenerateResponse
from services.frontend.openai.fields import to_json
from tests.eventually import eventually
from tests.stub_models import write_stub
from tests.survival.fleet import Fleet, fleet, queue_of

CHROMIUM = shutil.which("chromium") or ""
SEVEN = Path("docs/seven.png")
TOKENS, STEP_MS = 250, 25
WORKER_LEAVES_MS = 15_000
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="there is no chromium here")


class Seen:
    """What the browser did that it should not, and the jobs that it began."""

    def __init__(self, page: Page, address: str) -> None:
        self._address = address
        self.foreign: list[str] = []
        self.complaints: list[str] = []
        self.jobs: list[str] = []
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    async def let_through(self, route: Route) -> None:
        """Nothing but what goes to the frontend."""
        request = route.request
        if (name := await request.header_value("millrace-job-id")) is not None:
            self.jobs.append(name)
        if urlsplit(request.url).netloc == self._address:
            await route.continue_()
        else:
            self.foreign.append(request.url)
            await route.abort()


@asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        opened = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield opened
        finally:
            await opened.close()


def repository(folder: Path) -> Path:
    write_stub(folder, step_ms=STEP_MS)
    shutil.copytree("models/digits", folder / "digits")
    return folder


async def kill_who_runs(running: Fleet, page: Page) -> str:
    """kill -9 of the worker that the page shows with a job; answers the worker's id."""
    row = page.locator("#workers tbody tr", has=page.locator(".jobs .figure", has_text="1 of"))
    await expect(row).to_have_count(1)
    worker_id = await row.get_attribute("data-worker") or ""
    worker = next(each for each in running.workers if each.ready["id"] == worker_id)
    await asyncio.to_thread(worker.kill)
    return worker_id


async def length(page: Page) -> int:
    return len(await page.locator("#written").inner_text())


async def grown(page: Page, behind: int) -> int:
    """The length of what is written, once it is longer."""

    async def longer() -> int:
        now = await length(page)
        return now if now > behind else 0

    return await eventually(longer, within_s=20.0, every_s=0.05)


async def log_text(running: Fleet, job_id: str) -> str:
    """What the job's log says of it."""
    async with queue_of(running) as queue:
        log = await queue.read(JobRef(ModelVersion("stub", "1"), "default", job_id), 0, 10_000)
    results = [GenerateResponse.FromString(each.body or b"") for each in log if isinstance(each, Result)]
    return "".join(delta.text for result in results for delta in result.deltas)


async def test_a_person_sees_the_fleet_generates_through_two_kills_and_has_a_picture_read(tmp_path: Path) -> None:
    async with (
        fleet(
            repository(tmp_path),
            frontends=1,
            workers=2,
            MILLRACE_OPENAI="1",
            MILLRACE_PAGE="1",
            MILLRACE_LEASE_MS="1000",
            MILLRACE_OPENAI_RESUME_WINDOW_S="30",
        ) as running,
        browser() as opened,
    ):
        address = running.frontends[0].ready["http"]
        page = await opened.new_page()
        seen = Seen(page, address)
        await page.route("**/*", seen.let_through)
        await page.goto(f"http://{address}/")
        await expect(page.locator("#link")).to_have_text("live")
        await expect(page.locator("#models [data-model=stub] .ready")).to_have_text("2 workers")
        await expect(page.locator("#models [data-model=digits] .ready")).to_have_text("2 workers")
        await expect(page.locator("#workers tbody tr[data-state=ready]")).to_have_count(2)

        await page.select_option("#model", "digits/1")
        await page.set_input_files("#file", SEVEN)
        await expect(page.locator("#labels li .name").first).to_have_text("7", timeout=10_000)
        await page.set_input_files("#file", Path("pyproject.toml"))
        await expect(page.locator("#file-said")).to_contain_text("(invalid_request)", timeout=10_000)
        refused, seen.complaints = seen.complaints, []
        assert [line for line in refused if "400" not in line] == []

        await page.select_option("#model", "stub/1")
        await page.fill("#max-tokens", str(TOKENS))
        await page.click("#go")
        first = await grown(page, 0)
        second = await grown(page, first)
        gone = await kill_who_runs(running, page)
        await grown(page, await length(page))
        assert seen.complaints == []
        await asyncio.to_thread(running.frontends[0].kill)
        await expect(page.locator("#banner")).to_contain_text("cannot be reached")
        await asyncio.to_thread(running.frontends[0].start)
        await expect(page.locator("#said")).to_contain_text("reconnected at event", timeout=10_000)
        await expect(page.locator("#said")).to_have_text("done", timeout=20_000)
        written = await page.locator("#written").text_content()
        assert 0 < first < second < len(written or "")
        assert written == await log_text(running, seen.jobs[0])
        assert await page.locator("#tokens").text_content() == str(TOKENS)
        assert set(seen.jobs) == {seen.jobs[0]}
        row = page.locator(f"#workers tr[data-worker={to_json(gone)}]")
        await expect(row).to_have_attribute("data-state", "gone", timeout=WORKER_LEAVES_MS)
        await expect(page.locator("#link")).to_have_text("live")
        await expect(page.locator("#banner")).to_be_hidden()
        assert [line for line in seen.complaints if "ERR_" not in line] == []
        assert seen.foreign == []
