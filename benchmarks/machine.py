"""Description of the machine and the library versions, stored with each measurement."""

import os
import platform
from pathlib import Path

import torch


def machine(device: str) -> dict[str, str]:
    """Returns the hardware and the versions that a benchmark on "cpu" or "cuda" depends on, as texts for a report."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    cpu = next((line.split(":")[1].strip() for line in lines if "model name" in line), "")
    gpu = {}
    if device == "cuda":
        memory = torch.cuda.get_device_properties(0).total_memory
        gpu = {"memory": f"{memory / 2**30:.0f} GiB", "cuda": str(torch.version.cuda)}
        gpu["cudnn"] = str(torch.backends.cudnn.version())
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        **gpu,
        "cpu": f"{cpu or platform.processor()}, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
