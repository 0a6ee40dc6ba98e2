"""Private names of BentoML that the service uses."""

import pytest
from bentoml._internal.server.http import traffic

from serving.http.bentoml_internals import USED, USED_BY_SERVER, check_names


def test_the_names_that_the_service_uses_exist():
    check_names(USED + USED_BY_SERVER)


def test_a_name_that_is_missing_is_reported_with_the_version_of_bentoml(monkeypatch):
    monkeypatch.delattr(traffic, "TimeoutMiddleware")
    with pytest.raises(ImportError, match=r"BentoML 1\.4\.\d+ has no bentoml.*traffic\.TimeoutMiddleware"):
        check_names(USED)
