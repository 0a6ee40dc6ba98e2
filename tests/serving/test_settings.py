"""What can be set, and what is said of it."""

from dataclasses import fields
from pathlib import Path

import pytest

from serving.settings import SettingError, Settings

OPERATIONS = Path(__file__).parents[2] / "docs/operations.md"


def test_the_table_of_the_documentation_has_every_setting_with_its_default():
    rows = [line.split(" | ") for line in OPERATIONS.read_text().splitlines() if line.startswith("| `MNIST_GAN_")]
    told = {name.strip("| `"): default.strip("`") for name, default, *_ in rows}
    assert told.pop("MNIST_GAN_MODEL")
    assert told.keys() == {setting.metadata["name"] for setting in fields(Settings)}
    for setting in fields(Settings):
        read, default = setting.metadata["read"], told[setting.metadata["name"]]
        if default not in ("none", "the CPUs that the service may use; 2 for a GPU"):
            assert read(default) == setting.default, setting.name


@pytest.mark.parametrize("setting", fields(Settings), ids=lambda setting: setting.metadata["name"])
def test_a_setting_that_means_nothing_is_named(setting, monkeypatch):
    name = setting.metadata["name"]
    if setting.default is None or setting.default == ():
        return  # any text is one
    monkeypatch.setenv(name, "loud")
    with pytest.raises(SettingError, match=f"{name}: 'loud'"):
        Settings.from_environment()
