import pytest

from iris.host_memory import host_memory_bytes


@pytest.mark.parametrize(
    ("own", "limits", "found"),
    [
        ("0::/\n", {"memory.max": "1048576\n"}, 1 << 20),
        ("0::/\n", {"memory.max": "max\n"}, None),
        ("0::/a/b\n", {"a/b/memory.max": "max\n", "a/memory.max": "4096\n"}, 4096),
        ("0::/a/b\n", {"a/b/memory.max": "4096\n", "a/memory.max": "8192\n"}, 4096),
        # of a container that is told its place on the host, and sees its own group as the outermost
        ("4:memory:/docker/1\n0::/\n", {"memory/memory.limit_in_bytes": "4096\n"}, 4096),
        ("4:cpu,memory:/a\n", {"memory/a/memory.limit_in_bytes": "4096\n"}, 4096),
        ("4:memory:/\n", {"memory/memory.limit_in_bytes": "9223372036854771712\n"}, None),
        ("3:cpuset:/a\n", {"memory/a/memory.limit_in_bytes": "4096\n"}, None),
        ("nonsense\n", {"memory.max": "nonsense\n"}, None),
        (None, {}, None),
    ],
)
def test_a_containers_limit_is_the_memory_there_is(own, limits, found, tmp_path):
    physical = host_memory_bytes(tmp_path / "none", tmp_path / "none")
    if own is not None:
        (tmp_path / "own").write_text(own)
    for name, limit in limits.items():
        file = tmp_path / "mounted" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(limit)
    memory = host_memory_bytes(tmp_path / "own", tmp_path / "mounted")
    assert memory == (physical if found is None else found)
    assert physical > 64 << 20
