"""Which keys may go, and when: pure decisions over what a store lists, a policy, and the time."""
