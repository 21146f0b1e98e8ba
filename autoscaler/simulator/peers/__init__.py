"""What others scale by, re-implemented to be replayed beside foresize: `catalog.py` lists them, one file each. Pure.

Each follows its publisher's source or paper, named in its file together with what a replay cannot show of it. Those
that learn do so from demand that arrived, which is the best they could be given: usage saturates when replicas are
short. Those that end in the HPA share its guardrails with the rest of the package.
"""
