"""The rules of the diagnosis: each is a function that takes what was measured and gives a finding, or None. Pure."""
