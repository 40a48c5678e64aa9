"""Two tiny FLUX.2-klein models of random weights, each with two styles.

`fine` has klein's 16 pixels a token, `coarse` 32, where sizes of the contract's grid fall
between the model's own.
"""

import copy

import pytest
import torch
from diffusers import AutoencoderKLFlux2
from torch import nn

from iris.engine import calibration
from iris.engine.activity import Activity
from iris.engine.cache import Cache
from iris.engine.conditioning import Conditioner
from iris.engine.denoiser import Denoiser
from iris.engine.engine import Engine
from iris.engine.loader import load_components
from iris.engine.lora import install_styles
from iris.jobs import EditJob, GenerateJob, Pixels
from tests.engine.tiny_model import write_model, write_style

VAE_WIDTHS = {"fine": (8, 8, 16, 32), "coarse": (8, 8, 8, 16, 24)}


def in_float64(module):
    """A copy, with channels first: what all others are measured by."""
    return copy.deepcopy(module).to(torch.float64, memory_format=torch.contiguous_format)


DIFFERENCES = pytest.StashKey[list[float]]()


@pytest.fixture
def parity(pytestconfig):
    """Collects each picture's largest difference from the stock pipeline's, for the report."""
    return pytestconfig.stash.setdefault(DIFFERENCES, [])


def pytest_sessionfinish(session):
    if hasattr(session.config, "workeroutput"):  # one of several that share the tests
        session.config.workeroutput["parity"] = session.config.stash.get(DIFFERENCES, [])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    differences = node.config.stash.setdefault(DIFFERENCES, [])
    differences += node.workeroutput.get("parity", [])


def pytest_terminal_summary(terminalreporter, config):
    differences = config.stash.get(DIFFERENCES, [])
    if differences:
        terminalreporter.write_line(
            f"parity: {len(differences)} pictures, worst difference {max(differences):.2e}"
        )


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def many_widths():
    """A VAE with all that klein's has: attention, shortcuts, biases that are felt.

    And more widths, as iris-mini has: a compiler makes few graphs of one function.
    """
    torch.manual_seed(0)
    vae = AutoencoderKLFlux2(
        block_out_channels=(4, 8, 12, 16, 20, 24),
        down_block_types=("DownEncoderBlock2D",) * 6,
        up_block_types=("UpDecoderBlock2D",) * 6,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
    )
    for module in vae.modules():
        if isinstance(module, nn.Conv2d | nn.GroupNorm):
            nn.init.normal_(module.bias)
    return vae.eval().requires_grad_(False).to(memory_format=torch.channels_last)


class CompiledOnly:
    """In the place of what lets whatever was not compiled run as it is."""

    def __enter__(self):
        self._stance = torch.compiler.set_stance("fail_on_recompile")

    def __exit__(self, *_):
        self._stance.__exit__(None, None, None)


@pytest.fixture
def compiled_only(monkeypatch):
    """Whoever has settled fails where something has not been compiled."""
    monkeypatch.setattr("iris.engine.pointwise._NOTHING_NEW", CompiledOnly())


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """name -> folder with weights/ and styles/{dark,anime}/."""
    found = {}
    for name, widths in VAE_WIDTHS.items():
        out = tmp_path_factory.mktemp(name)
        write_model(out / "weights", widths, seed=3)
        for seed, style in enumerate(("dark", "anime")):
            write_style(out / "styles" / style, out / "weights", seed)
        found[name] = out
    return found


@pytest.fixture(scope="session")
def load(folders):
    """load(name) -> fresh (components, styles) on the CPU."""

    def load_model(name, dtype=torch.float32):
        folder = folders[name]
        components = load_components(folder / "weights", torch.device("cpu"), dtype)
        styles = {style: folder / "styles" / style for style in ("dark", "anime")}
        return components, install_styles(components.transformer, styles)

    return load_model


@pytest.fixture(scope="session")
def fine(load):
    return load("fine")


@pytest.fixture(scope="session")
def coarse(load):
    return load("coarse")


@pytest.fixture
def denoiser(fine):
    return Denoiser(*fine)


def a_conditioner(components, denoiser, cache_bytes=0):
    return Conditioner(components, denoiser, Cache(cache_bytes), Activity())


def stepped(model, denoiser, company):
    """Rows of the jobs, all their steps taken together."""
    rows = a_conditioner(model[0], denoiser).rows(company)
    while going := [row for row in rows if not row.is_done]:
        denoiser.step(going)
    return rows


def a_job(**changes):
    """A small generation, or an edit when it has images."""
    fields = {
        "request_id": "r",
        "owner": "key_1",
        "prompt": "a red boat on a calm sea",
        "width_px": 64,
        "height_px": 64,
        "num_inference_steps": 2,
        "seed": 1,
        "guidance_scale": 1.0,
        "lora": None,
        "lora_strength": 0.6,
        "deadline_s": 60.0,
    }
    if "images" in changes:
        fields["strength"] = None
        return EditJob(**fields | changes)
    return GenerateJob(**fields | changes)


def a_gradient(width_px, height_px, turn=0):
    """A smooth picture, the same whenever it is asked for."""
    across = torch.linspace(0, 255, width_px).expand(height_px, width_px)
    down = torch.linspace(255, 0, height_px).unsqueeze(1).expand(height_px, width_px)
    flat = torch.full((height_px, width_px), 40.0 * (turn + 1))
    channels = torch.stack([across, down, flat]).roll(turn, 0)
    rgb = channels.round().to(torch.uint8).permute(1, 2, 0).contiguous()
    return Pixels(width_px, height_px, rgb.numpy().tobytes())


@pytest.fixture
def small_calibration(monkeypatch):
    """Measured on pictures as small as the tests'; 768x768 is ten seconds of work here."""
    monkeypatch.setattr(calibration, "_SIZES_PX", ((32, 192), (32, 192), (192, 192)))


@pytest.fixture
def make_engine(fine, small_calibration):
    """make_engine(**limits) -> a started engine over the fine model; all are closed at the end."""
    engines = []

    def make(**limits):
        fields = {
            "max_waiting": 64,
            "max_running": 8,
            "cache_bytes": 1 << 24,
            "stall_s": 30.0,
        } | limits
        engine = Engine(*fine, **fields)
        engine.start()
        engines.append(engine)
        return engine

    yield make
    for engine in engines:
        engine.close()
