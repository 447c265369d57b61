"""`python -m nostrain.devnet.simnet`."""

from nostrain.devnet.simnet.process import main

raise SystemExit(main())
