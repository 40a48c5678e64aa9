import torch

from iris.engine.transfer import upload

CPU = torch.device("cpu")


def test_on_a_cpu_values_are_as_they_were():
    values = torch.tensor([1.0, 2.5])
    assert torch.equal(upload(values, CPU), values)
    assert upload(values, CPU, torch.bfloat16).dtype == torch.bfloat16


def test_to_cuda_values_go_from_pinned_memory_and_nobody_waits():
    calls = []

    class Values:
        def to(self, *args, **options):
            calls.append(("to", args, options))
            return self

        def pin_memory(self):
            calls.append(("pin_memory", (), {}))
            return self

    cuda = torch.device("cuda")
    upload(Values(), cuda, torch.bfloat16)
    assert calls == [
        ("to", (torch.bfloat16,), {}),
        ("pin_memory", (), {}),
        ("to", (cuda,), {"non_blocking": True}),
    ]
