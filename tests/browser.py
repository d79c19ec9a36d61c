"""A real Chromium, driven over its DevTools protocol: open a page, run a function in it, press keys, take a picture."""

# ruff: noqa: ASYNC110 - another process cannot set an event
from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

needs_chromium = pytest.mark.skipif(
    shutil.which("chromium") is None, reason="needs chromium (Debian package `chromium`)"
)


class Page:
    """One tab. events: what the browser reported (requests, console messages, exceptions)."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._number = 0
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.events: list[dict[str, Any]] = []
        self._reading = asyncio.create_task(self._read())

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """One command of the protocol. Raises AssertionError with the browser's words."""
        self._number += 1
        self._waiting[self._number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": self._number, "method": method, "params": params})
        answer = await asyncio.wait_for(self._waiting[self._number], 60)
        assert "error" not in answer, f"{method}: {answer['error']}"
        return dict(answer["result"])

    async def open(self, url: str, ready: str, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Open and wait until the expression `ready` holds."""
        await self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
                        mobile=width < 600)  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])
        for domain in ("Page", "Runtime", "Network", "Log"):
            await self.call(f"{domain}.enable")
        await self.call("Page.navigate", url=url)
        await self.until(ready)

    async def run(self, expression: str) -> Any:
        """The value of an expression; promises are awaited."""
        found = await self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    async def until(self, condition: str, limit_s: float = 40.0) -> None:
        """Poll an expression until it holds; the limit only ends a test that hangs."""
        try:
            async with asyncio.timeout(limit_s):
                while not await self.run(f"Boolean({condition})"):
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"never: {condition}; {self.events[-5:]}") from None

    async def press(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            text = {"text": key} if kind == "keyDown" and len(key) == 1 else {}
            await self.call("Input.dispatchKeyEvent", type=kind, key=key, **text)

    async def picture(self, path: Path, *, whole: bool = False) -> None:
        """Save what is seen as PNG."""
        made = await self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(made["data"]))

    def requests(self) -> list[str]:
        """Addresses that the page asked for."""
        return [e["params"]["request"]["url"] for e in self.events if e["method"] == "Network.requestWillBeSent"]

    def complaints(self) -> list[str]:
        """Exceptions and errors that the page or the browser reported."""
        found = []
        for event in self.events:
            params = event["params"]
            if event["method"] == "Runtime.exceptionThrown":
                found.append(str(params["exceptionDetails"].get("exception", params["exceptionDetails"])))
            elif event["method"] == "Log.entryAdded" and params["entry"]["level"] == "error":
                found.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
        return found

    async def close(self) -> None:
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        await self._socket.close()

    async def _read(self) -> None:
        async for message in self._socket:
            document = json.loads(message.data)
            if "id" in document:
                self._waiting.pop(document["id"]).set_result(document)
            else:
                self.events.append(document)


@asynccontextmanager
async def browser() -> AsyncIterator[Page]:
    """A browser with one empty tab."""
    profile = tempfile.mkdtemp(prefix="chromium-")
    command = [
        "chromium", "--headless", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--no-first-run",
        "--remote-debugging-port=0", f"--user-data-dir={profile}", *(["--no-sandbox"] if os.geteuid() == 0 else []),
        "about:blank",
    ]  # fmt: skip
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        port_file = Path(profile) / "DevToolsActivePort"
        async with asyncio.timeout(60):
            while not (port_file.exists() and port_file.read_text().count("\n")):
                await asyncio.sleep(0.05)
        port = port_file.read_text().split()[0]
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                tab = next(t for t in json.loads(await answer.text()) if t["type"] == "page")
            page = Page(await session.ws_connect(tab["webSocketDebuggerUrl"], max_msg_size=0))
            try:
                yield page
            finally:
                await page.close()
    finally:
        process.terminate()
        await process.wait()
        shutil.rmtree(profile, ignore_errors=True)
