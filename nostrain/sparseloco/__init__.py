"""SparseLoCo: codec, error feedback, exact aggregation, canonical checkpoint. numpy only (design sections 3 and 12)."""
