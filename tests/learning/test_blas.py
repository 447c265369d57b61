"""OpenBLAS in the place of what the frameworks bring, where it is faster."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nostrain.learning.blas import gains, is_amd

PRODUCTS = {
    "mlx": ("mlx.core", "import mlx.core as mx; mx.eval(mx.ones((8, 8)) @ mx.ones((8, 8)))", "libmlx.so", "cblas_sgemm"),
    "pytorch": ("torch", "import torch; torch.ones(64, 64) @ torch.ones(64, 64)", "libtorch_cpu.so", "sgemm_"),
}


@pytest.mark.skipif(sys.platform != "linux", reason="OpenBLAS is used on Linux alone")
@pytest.mark.parametrize("kind", PRODUCTS)
def test_matrix_products_are_openblas_own_where_there_is_one(kind: str, tmp_path: Path) -> None:
    """The dynamic linker says to which library it bound the call, in a process that does what the engine's does."""
    module, product, caller, symbol = PRODUCTS[kind]
    pytest.importorskip(module, reason=f"{module} is not installed: THAT {kind} USES OPENBLAS IS NOT TESTED")
    code = f"import sys; from nostrain.learning.blas import use_openblas; found = use_openblas(); {product}; sys.exit(0 if found else 3)"
    traced = {**os.environ, "LD_DEBUG": "bindings", "LD_DEBUG_OUTPUT": str(tmp_path / "bindings")}
    status = subprocess.run([sys.executable, "-c", code], env=traced, timeout=100, check=False).returncode
    if status == 3:
        pytest.skip("no libopenblas.so.0 on this machine: ENGINES MULTIPLY SLOWER HERE (apt install libopenblas0)")
    assert status == 0
    with next(tmp_path.iterdir()).open() as file:
        bound = [line for line in file if f"symbol `{symbol}'" in line and caller in line.partition(" to ")[0]]
    assert bound, f"{caller} never asked for {symbol}"
    assert all("libopenblas" in line.partition(" to ")[2] for line in bound)


def test_torch_keeps_its_own_but_on_amd(tmp_path: Path) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text("processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: one\n")
    assert is_amd(path)
    path.write_text("processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: not AuthenticAMD\n")
    assert not is_amd(path)
    path.write_bytes(b"\xff\x00")
    assert not is_amd(path)
    assert not is_amd(tmp_path / "missing")


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_a_mac_has_better(platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    assert not gains("mlx")
    assert not gains("pytorch")
