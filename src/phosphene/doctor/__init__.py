"""The doctor: whether a network is fed as it was trained, and what of it can be shown.

`inspect` looks at a network alone.  `fit` tries the usual preprocessings on labelled photographs: the one under which
the network names most of them is the one that it was trained with.  Most images that come out as noise come from
networks that are fed otherwise: channels swapped, another range, a mean that is not subtracted.
"""

from phosphene.doctor.feeds import candidates, differences, remedy, resize_rules
from phosphene.doctor.findings import Finding
from phosphene.doctor.fitting import Fit, Trial, fit
from phosphene.doctor.inspection import inspect
from phosphene.doctor.photographs import Photographs, labelled_by_name, labelled_by_table, read_photographs

__all__ = [
    "Finding",
    "Fit",
    "Photographs",
    "Trial",
    "candidates",
    "differences",
    "fit",
    "inspect",
    "labelled_by_name",
    "labelled_by_table",
    "read_photographs",
    "remedy",
    "resize_rules",
]
