"""The delta codec on a synthetic pseudo-gradient, beside what one would write in torch in an afternoon (top-k of each chunk, float32 values, int64 indices).

The comparison with the reference implementation of SparseLoCo, the ratio on real pseudo-gradients and the better coder belong to a later issue.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from _side_by_side import side_by_side

from nostrain.protocol.manifest import CodecSpec, OuterSpec, TensorSpec
from nostrain.sparseloco.aggregate import cap_weights, outer_step, step_weights
from nostrain.sparseloco.codec import decode_untrusted, encode


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parameters", type=int, default=8 << 20)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    codec, rows = CodecSpec(), options.parameters // 4096
    tensors = (TensorSpec("w", (rows, 4096)),)
    generator = np.random.default_rng(0)
    values = (generator.standard_normal(rows * 4096) * 1e-3).astype(np.float32)
    grid = torch.from_numpy(values).view(rows, 4096)
    blob = encode(tensors, codec, values)
    naive = {"indices": grid.abs().topk(codec.topk).indices}
    kept = grid.gather(1, naive["indices"])
    print(f"{rows * 4096:,} parameters, one thread; blob {len(blob):,} bytes, {values.nbytes / len(blob):.1f}x below float32")

    def naive_encode() -> None:
        indices = grid.abs().topk(codec.topk).indices
        grid.gather(1, indices)

    def naive_decode() -> None:
        torch.zeros_like(grid).scatter_(1, naive["indices"], kept)

    side_by_side(
        {"nostrain: encode": lambda: encode(tensors, codec, values), "torch: top-k and gather": naive_encode},
        rounds=options.rounds,
        units=rows * 4096,
        unit="parameters",
    )
    side_by_side(
        {"nostrain: decode, checked": lambda: decode_untrusted(blob, tensors, codec), "torch: scatter, unchecked": naive_decode},
        rounds=options.rounds,
        units=rows * 4096,
        unit="parameters",
    )
    deltas = [decode_untrusted(blob, tensors, codec)] * 4
    outer = OuterSpec()

    def exact() -> None:
        outer_step(values, deltas, step_weights(cap_weights(deltas), outer, 4))

    def floats() -> None:
        total = torch.zeros_like(grid)
        for _ in deltas:
            total.scatter_add_(1, naive["indices"], kept)
        grid - 0.5 * total

    side_by_side(
        {"nostrain: exact outer step, 4 deltas": exact, "torch: float32 sum, 4 deltas": floats},
        rounds=options.rounds,
        units=rows * 4096,
        unit="parameters",
    )


if __name__ == "__main__":
    main()
