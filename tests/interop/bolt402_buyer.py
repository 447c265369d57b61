"""Somebody else's L402 client in a process of its own: `python bolt402_buyer.py WALLET_URL BLOB_URL`. Prints what it got, as JSON.

It knows of nostrain nothing but the URL of a blob.
"""

from __future__ import annotations

import json
import sys

import bolt402

wallet, url = sys.argv[1:]
client = bolt402.L402Client.with_cln_rest(wallet, "rune", budget=bolt402.Budget(per_request_max=10), max_fee_sats=5)
response = client.get(url)
receipt = response.receipt
print(
    json.dumps(
        {
            "status": response.status,
            "text": response.text(),
            "paid": response.paid,
            "amount_sats": receipt.amount_sats if receipt is not None else None,
            "spent": client.total_spent(),
        }
    )
)
