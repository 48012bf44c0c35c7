"""The page asks its reader for a key, where the frontend wants one."""

import shutil

import pytest
from playwright.async_api import async_playwright, expect

from tests.frontend.access.tenants import Book
from tests.frontend.playing import Worker, frontend

CHROMIUM = shutil.which("chromium") or ""


@pytest.mark.skipif(not CHROMIUM, reason="there is no chromium here")
async def test_the_page_shows_the_fleet_to_who_has_an_administrators_key(
    redis_url: str, worker: Worker, book: Book, key: str
) -> None:
    admin = book.add("ops", admin=True)
    async with frontend(redis_url, api_keys=book.path, page=True, openai=True) as served, async_playwright() as running:
        browser = await running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = await browser.new_page(viewport={"width": 1000, "height": 700})
        await page.goto(f"http://{served.http_address}/")
        field, banner = page.locator("#key"), page.locator("#banner")
        await expect(banner).to_contain_text("CREDENTIALS_MISSING", ignore_case=True)
        for wrong, told in ((key + "x", "credentials_invalid"), (key, "admin_required")):
            await field.fill(wrong)
            await field.press("Enter")
            await expect(banner).to_contain_text(told)
        await field.fill(admin)
        await field.press("Enter")
        await expect(page.locator("#models")).to_contain_text("echo")
        await expect(page.locator("#key-form")).to_be_hidden()
        await page.reload()
        await expect(page.locator("#models")).to_contain_text("echo")
        book.revoke(admin)
        await expect(banner).to_contain_text("key_revoked")
        await browser.close()
