"""Everything that touches keys: age files, recipients and identities, the vault, minisign signatures."""
