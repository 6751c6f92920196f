"""The replication of the FYI paper: every published number, what others say of it, ours, and a verdict.

`page(store)` is docs/replication.md, `head(store)` what stands at the top of the README, `picture(store)` beside it;
`renew` puts both there. All are made from the runs of a store and nothing else, so the same store gives the same text
on any machine.
"""

from fyi_bench.present.replication.page import head, page, renew
from fyi_bench.present.replication.picture import picture

__all__ = ["head", "page", "picture", "renew"]
