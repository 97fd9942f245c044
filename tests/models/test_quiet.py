"""What the libraries underneath say: only what a reader can use."""

import logging

import pytest

from zocore.models import quiet


def test_a_missing_package_of_faster_products_is_no_news(caplog: pytest.LogCaptureFixture) -> None:
    """bitsandbytes warns of it on every start on some processors; its other warnings are heard."""
    assert quiet
    speaks = logging.getLogger("bitsandbytes.backends.cpu.ops")
    speaks.warning("Failed to load CPU gemm_4bit_forward from kernels-community: %s. Please install", "no kernels")
    speaks.warning("the codes of this layer are damaged")
    assert [record.message for record in caplog.records] == ["the codes of this layer are damaged"]
