"""Where restored bytes land: files staged inside the target, proven, then swapped into place."""
