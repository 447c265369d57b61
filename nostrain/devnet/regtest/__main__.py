"""`python -m nostrain.devnet.regtest`."""

from nostrain.devnet.regtest.process import main

raise SystemExit(main())
