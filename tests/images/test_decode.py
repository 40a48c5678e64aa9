from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from iris.config import Settings
from iris.errors import BackendUnavailable, ConfigError, InvalidImage
from iris.images.decode import Decoder
from iris.images.fit import Exact, Within
from tests.images.test_prescan import BOMBS

EDIT = Within(704, 704 * 704, 16)
SMALL = Exact(32, 32)
Build = Callable[..., Settings]


@contextlib.asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Decoder]:
    decoder = Decoder(settings)
    await decoder.start()
    try:
        yield decoder
    finally:
        await decoder.stop()


def _ends(pid: int) -> bool:
    """Whether the process ends within a few seconds."""
    for _ in range(500):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False


def _environment(pid: int) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()


def _peak_mb(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) // 1024


def _cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


async def _until(ready: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not ready():  # noqa: ASYNC110 - what is waited for happens in another process
            await asyncio.sleep(0.005)


async def _kill_once_busy(decoder: Decoder) -> int:
    """Kill the first process seen decoding; returns its id."""
    before = {pid: _cpu_ticks(pid) for pid in decoder.pids}
    while True:
        await asyncio.sleep(0.005)
        for pid in decoder.pids:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if _cpu_ticks(pid) > before.setdefault(pid, _cpu_ticks(pid)) + 3:
                    os.kill(pid, signal.SIGKILL)
                    return pid


@pytest.fixture(scope="session")
def slow(files: Any) -> bytes:
    """An honest file of 49 megapixels, black, that takes a good part of a second to decode."""
    rows = (b"\x04" + bytes(3 * 7_000)) * 7_000
    data: bytes = files.png(7_000, 7_000, 8, 2, rows)
    return data


def test_a_file_becomes_pixels_of_the_size_asked_for(files: Any, settings: Build) -> None:
    async def run() -> None:
        async with running(settings()) as decoder:
            data = files.saved(Image.new("RGB", (1408, 704), (200, 30, 40)), "PNG")
            pixels = await decoder.decode(data, which=None, fit=EDIT)
            assert (pixels.width_px, pixels.height_px) == (704, 352)
            assert pixels.rgb == bytes((200, 30, 40)) * 704 * 352
            exact = await decoder.decode(data, which=1, fit=Exact(48, 160))
            assert (exact.width_px, exact.height_px, len(exact.rgb)) == (48, 160, 48 * 160 * 3)

    asyncio.run(run())


def test_the_size_is_told_upright_and_fitted_without_decoding(files: Any, settings: Build) -> None:
    async def run() -> None:
        async with running(settings()) as decoder:
            exif = Image.Exif()
            exif[0x0112] = 8
            data = files.saved(Image.new("RGB", (1600, 800)), "JPEG", exif=exif)
            assert await decoder.size(data, which=None) == (800, 1600)
            assert await decoder.size(data, which=None, fit=EDIT) == (352, 704)
            headless = files.png(10_000, 5_000, 8, 2, b"")
            assert await decoder.size(headless, which=None) == (10_000, 5_000)

    asyncio.run(run())


def test_a_refusal_names_the_image_its_field_and_the_reason(files: Any, settings: Build) -> None:
    noise = files.saved(files.noise(), "PNG")
    corrupt = noise[:60] + files.chunk(b"IDAT", b"junk") + files.chunk(b"IEND")
    broken = noise[:33] + files.chunk(b"IDAT", b"junk" * 50) + files.chunk(b"IEND")
    cases = {
        b"%PDF-1.7": "is not a PNG",
        files.flat("PNG")[:-30]: "truncated",
        corrupt: "truncated",
        broken: "cannot be decoded as PNG",
        files.webp_bomb(13_300): "50 megapixels",
        files.flat("PNG", size=(15, 64)): "at least 16 px",
        files.saved(files.noise(), "JPEG").replace(b"\x08\x00\x30", b"\x0c\x00\x30", 1): "JPEG",
        files.riff(files.part(b"VP8L", b"\x2f\x0f\xc0\x03" + bytes(30))): "WebP",
        files.gif(files.gif_frame(16, 16)).replace(b"\x08", b"\x0f", 1): "GIF",
    }

    async def run() -> None:
        async with running(settings()) as decoder:
            pids = decoder.pids
            for data, word in cases.items():
                with pytest.raises(InvalidImage, match=r"^image 3 ") as third:
                    await decoder.decode(data, which=3, fit=EDIT)
                assert word in third.value.message
                assert (third.value.code, third.value.param) == ("invalid_image", "images")
                with pytest.raises(InvalidImage, match=r"^image [a-z]") as only:
                    await decoder.decode(data, which=None, fit=EDIT)
                assert only.value.param == "image"
            assert decoder.pids == pids

    asyncio.run(run())


def test_bombs_cost_a_process_neither_memory_nor_its_life(files: Any, settings: Build) -> None:
    async def run() -> None:
        async with running(settings(decode_workers=1)) as decoder:
            pids = decoder.pids
            for name, (build, word) in BOMBS.items():
                bomb = build(files)
                began = time.monotonic()
                with pytest.raises(InvalidImage) as refusal:
                    await decoder.decode(bomb, which=None, fit=EDIT)
                assert time.monotonic() - began < 2.0, name
                assert word in refusal.value.message, name
            assert decoder.pids == pids
            assert _peak_mb(*pids) < 150

    asyncio.run(run())


def test_random_damage_gives_pixels_or_a_refusal_and_kills_nothing(
    files: Any, settings: Build
) -> None:
    noise = files.noise()
    animated = files.saved(noise, "GIF", save_all=True, append_images=[noise.rotate(90)])
    originals = [
        files.saved(noise, "PNG"),
        files.jpeg(progressive=True, icc_profile=files.profile()),
        files.saved(noise.convert("CMYK"), "JPEG"),
        files.saved(noise, "WEBP", exif=files.exif(6)),
        files.saved(noise.convert("RGBA"), "WEBP", lossless=True),
        animated,
    ]
    chance = random.Random(1)

    async def run() -> None:
        async with running(settings()) as decoder:
            pids = decoder.pids
            refused = 0
            for data in originals:
                for _ in range(60):
                    damaged = bytearray(data)
                    for _ in range(chance.randint(1, 4)):
                        damaged[chance.randrange(len(data))] = chance.randrange(256)
                    cut = chance.choice((len(data), chance.randrange(len(data))))
                    try:
                        pixels = await decoder.decode(bytes(damaged[:cut]), which=None, fit=SMALL)
                    except InvalidImage:
                        refused += 1
                    else:
                        assert len(pixels.rgb) == 32 * 32 * 3
            assert 0 < refused < 60 * len(originals)
            assert decoder.pids == pids

    asyncio.run(run())


def test_good_images_among_bad_ones_all_come_through(files: Any, settings: Build) -> None:
    async def run() -> None:
        async with running(settings()) as decoder:
            work: list[Awaitable[Any]] = []
            for index in range(40):
                shade = Image.new("RGB", (64, 64), (index * 5, 0, 0))
                data = files.saved(shade, "PNG") if index % 4 else files.webp_bomb(13_300)
                work.append(decoder.decode(data, which=index + 1, fit=SMALL))
            results = await asyncio.gather(*work, return_exceptions=True)
            for index, result in enumerate(results):
                if index % 4:
                    assert result.rgb == bytes((index * 5, 0, 0)) * 1024
                else:
                    assert isinstance(result, InvalidImage)
                    assert result.message.startswith(f"image {index + 1} ")

    asyncio.run(run())


def test_an_owner_waits_for_one_image_of_each_other_and_not_for_all_of_them(
    files: Any, settings: Build
) -> None:
    async def run() -> None:
        async with running(settings(decode_workers=1)) as decoder:
            data, done = files.flat("PNG"), []

            async def decode(owner: str) -> None:
                await decoder.decode(data, which=None, fit=SMALL, owner=owner)
                done.append(owner)

            await asyncio.gather(*map(decode, "aaaabbc"))
            assert done == list("abcabaa")

    asyncio.run(run())


def test_images_that_nobody_waits_for_any_more_take_nobodys_turn(
    files: Any, settings: Build
) -> None:
    async def run() -> None:
        async with running(settings(decode_workers=1)) as decoder:
            data = files.flat("PNG")
            work = {
                owner: [
                    asyncio.create_task(decoder.decode(data, which=n, fit=SMALL, owner=owner))
                    for n in range(10)
                ]
                for owner in ("one", "other")
            }
            await asyncio.sleep(0)
            for task in work["other"][:9]:
                task.cancel()
            await work["other"][9]
            assert sum(task.done() for task in work["one"]) <= 2
            await asyncio.gather(*work["one"])

    asyncio.run(run())


def test_an_image_that_takes_too_long_is_refused_alone(files: Any, settings: Build) -> None:
    data = files.flat("PNG")

    async def run() -> None:
        async with running(settings(decode_timeout_s=0.5)) as decoder:
            stuck = min(decoder.pids)
            os.kill(stuck, signal.SIGSTOP)
            results = await asyncio.gather(
                *(decoder.decode(data, which=n, fit=SMALL) for n in range(1, 9)),
                return_exceptions=True,
            )
            failed = [result for result in results if isinstance(result, BaseException)]
            assert len(failed) == 1
            assert isinstance(failed[0], InvalidImage)
            assert "took too long to decode" in failed[0].message
            assert _ends(stuck)
            await _until(lambda: len(decoder.pids - {stuck}) == 2)
            await decoder.decode(data, which=None, fit=SMALL)
            assert stuck not in decoder.pids

    asyncio.run(run())


def test_an_image_that_needs_too_much_memory_is_refused_alone(
    files: Any, slow: bytes, settings: Build
) -> None:
    async def run() -> None:
        async with running(settings(decode_memory_mb=256)) as decoder:
            before = decoder.pids
            results = await asyncio.gather(
                decoder.decode(slow, which=1, fit=SMALL),
                *(decoder.decode(files.flat("PNG"), which=n, fit=SMALL) for n in range(2, 8)),
                return_exceptions=True,
            )
            assert isinstance(results[0], InvalidImage)
            assert "image 1 needs more memory" in results[0].message
            assert all(len(result.rgb) == 3072 for result in results[1:])
            await _until(lambda: len(decoder.pids) == 2 and decoder.pids != before)
            for pid in decoder.pids:
                assert _peak_mb(pid) < 256
        async with running(settings()) as decoder:
            assert (await decoder.decode(slow, which=1, fit=SMALL)).rgb == bytes(3072)

    asyncio.run(run())


def test_a_process_killed_between_jobs_costs_no_request(files: Any, settings: Build) -> None:
    async def run() -> None:
        async with running(settings()) as decoder:
            for wait_s in (0.0, 0.2):
                killed = decoder.pids
                for pid in killed:
                    os.kill(pid, signal.SIGKILL)
                await asyncio.sleep(wait_s)
                for _ in range(4):
                    await decoder.decode(files.flat("PNG"), which=None, fit=SMALL)
                await _until(lambda gone=killed: len(decoder.pids - gone) == 2)
                assert not killed & decoder.pids

    asyncio.run(run())


def test_a_process_killed_during_a_job_costs_no_request_but_time(
    files: Any, slow: bytes, settings: Build
) -> None:
    async def run() -> None:
        async with running(settings()) as decoder:
            job = asyncio.create_task(decoder.decode(slow, which=None, fit=SMALL))
            killed = await asyncio.wait_for(_kill_once_busy(decoder), 20)
            assert len((await job).rgb) == 3072
            assert _ends(killed)

    asyncio.run(run())


def test_an_image_that_ends_two_processes_is_refused_and_they_come_back(
    files: Any, slow: bytes, settings: Build
) -> None:
    async def run() -> None:
        async with running(settings()) as decoder:
            job = asyncio.create_task(decoder.decode(slow, which=2, fit=SMALL))
            await asyncio.wait_for(_kill_once_busy(decoder), 20)
            await asyncio.wait_for(_kill_once_busy(decoder), 20)
            with pytest.raises(InvalidImage, match=r"^image 2 cannot be decoded"):
                await job
            await _until(lambda: len(decoder.pids) == 2)
            await decoder.decode(files.flat("PNG"), which=None, fit=SMALL)

    asyncio.run(run())


def test_a_cancelled_call_leaves_the_pool_whole(files: Any, slow: bytes, settings: Build) -> None:
    async def run() -> None:
        async with running(settings()) as decoder:
            tasks = [
                asyncio.create_task(decoder.decode(slow, which=None, fit=SMALL)) for _ in range(5)
            ]
            busy = decoder.pids
            start = {pid: _cpu_ticks(pid) for pid in busy}
            await _until(lambda: all(_cpu_ticks(pid) > start[pid] for pid in busy))
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(result, asyncio.CancelledError) for result in results)
            assert all(_ends(pid) for pid in busy)
            good = [decoder.decode(files.flat("PNG"), which=None, fit=SMALL) for _ in range(6)]
            assert all(len(pixels.rgb) == 3072 for pixels in await asyncio.gather(*good))
            await _until(lambda: len(decoder.pids) == 2)

    asyncio.run(run())


def test_no_more_processes_run_than_are_configured(files: Any, settings: Build) -> None:
    async def run() -> None:
        async with running(settings(decode_workers=3)) as decoder:
            assert len(decoder.pids) == 3
            jobs = [decoder.decode(files.flat("PNG"), which=None, fit=SMALL) for _ in range(20)]
            await asyncio.gather(*jobs)
            assert len(decoder.pids) == 3

    asyncio.run(run())


def test_stop_ends_every_process_and_every_call(files: Any, slow: bytes, settings: Build) -> None:
    async def run() -> None:
        decoder = Decoder(settings())
        with pytest.raises(BackendUnavailable):
            await decoder.decode(files.flat("PNG"), which=None, fit=SMALL)
        await decoder.stop()
        await decoder.start()
        pids = decoder.pids
        calls = [asyncio.create_task(decoder.decode(slow, which=None, fit=SMALL)) for _ in range(4)]
        await asyncio.sleep(0.05)
        await decoder.stop()
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(result, BackendUnavailable) for result in results)
        assert all(_ends(pid) for pid in pids)
        with pytest.raises(BackendUnavailable):
            await decoder.decode(files.flat("PNG"), which=None, fit=SMALL)
        await decoder.start()
        await decoder.decode(files.flat("PNG"), which=None, fit=SMALL)
        await decoder.stop()

    asyncio.run(run())


def test_a_limit_too_small_to_start_under_is_named_at_the_start(settings: Build) -> None:
    async def run() -> None:
        decoder = Decoder(settings(decode_memory_mb=1))
        with pytest.raises(ConfigError, match="IRIS_DECODE_MEMORY_MB=1"):
            await decoder.start()
        assert not decoder.pids

    asyncio.run(run())


def test_ctrl_c_and_terminate_leave_the_processes_to_their_parent(
    files: Any, settings: Build
) -> None:
    async def run() -> None:
        async with running(settings()) as decoder:
            pids = decoder.pids
            for pid in pids:
                os.kill(pid, signal.SIGINT)
                os.kill(pid, signal.SIGTERM)
            for _ in range(4):
                await decoder.decode(files.flat("PNG"), which=None, fit=SMALL)
            assert decoder.pids == pids

    asyncio.run(run())


def test_a_process_sees_no_secret_of_the_environment(
    settings: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IRIS_DATABASE_URL", "postgresql://iris:hunter2@db/iris")

    async def run() -> None:
        async with running(settings()) as decoder:
            for pid in decoder.pids:
                assert b"hunter2" not in _environment(pid)

    asyncio.run(run())


def test_the_processes_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    program = """
        import asyncio, sys
        from pathlib import Path
        from iris.config import Settings
        from iris.images.decode import Decoder

        async def main():
            home = Path(sys.argv[1])
            decoder = Decoder(Settings(home=home, database_url="sqlite://", registry=home))
            await decoder.start()
            print(*decoder.pids, flush=True)
            await asyncio.sleep(60)

        asyncio.run(main())
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2
        parent.kill()
        parent.wait()
        assert all(_ends(pid) for pid in pids)
