"""Private names of BentoML that the service uses."""

import pytest
from bentoml._internal.server.http import traffic

from serving.http.bentoml_internals import REQUIRED_NAMES, REQUIRED_SERVER_NAMES, check_names


def test_the_installed_bentoml_has_all_required_names():
    check_names(REQUIRED_NAMES + REQUIRED_SERVER_NAMES)


def test_a_missing_name_is_reported_with_the_version_of_bentoml(monkeypatch):
    monkeypatch.delattr(traffic, "TimeoutMiddleware")
    with pytest.raises(ImportError, match=r"BentoML 1\.4\.\d+ has no bentoml.*traffic\.TimeoutMiddleware"):
        check_names(REQUIRED_NAMES)
