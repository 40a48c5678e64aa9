import pytest

from iris import devices
from iris.devices import num_devices


@pytest.mark.parametrize(
    ("visible", "number"),
    [
        ("0", 1),
        ("0,1", 2),
        ("2, 3", 2),
        ("GPU-1f,GPU-2e,GPU-3d", 3),
        ("", 1),
        ("-1", 1),
        ("0,-1,1", 1),
    ],
)
def test_visible_devices_are_counted_as_cuda_counts_them(visible, number):
    assert num_devices("auto", {"CUDA_VISIBLE_DEVICES": visible}) == number
    assert num_devices("cuda", {"CUDA_VISIBLE_DEVICES": visible}) == number


def test_a_cpu_is_one_device():
    assert num_devices("cpu", {"CUDA_VISIBLE_DEVICES": "0,1"}) == 1


@pytest.mark.parametrize(("gpus", "number"), [(0, 1), (1, 1), (4, 4)])
def test_where_nothing_is_said_all_gpus_count(gpus, number, monkeypatch):
    monkeypatch.setattr(devices, "_num_gpus", lambda: gpus)
    assert num_devices("auto", {}) == number


def test_a_machine_without_a_driver_has_no_gpu():
    assert devices._num_gpus() >= 0
