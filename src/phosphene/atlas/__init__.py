"""The atlas: every unit of some layers of a network, made, kept and looked up.

A plan says what is to be made, a store keeps it, and workers make what the store lacks.
"""

from phosphene.atlas.claims import LEASE
from phosphene.atlas.plan import FRAMES, Group, Plan, estimate, make_plan, merged, panel
from phosphene.atlas.site import write_site
from phosphene.atlas.store import Store
from phosphene.atlas.work import Status, run, status

__all__ = [
    "FRAMES",
    "LEASE",
    "Group",
    "Plan",
    "Status",
    "Store",
    "estimate",
    "make_plan",
    "merged",
    "panel",
    "run",
    "status",
    "write_site",
]
