"""System canisters that the replica plays itself: ledgers of ICP and cycles, and cycles minting."""
