"""The exact rewrites in the order in which they help each other."""

from __future__ import annotations

from collections.abc import Sequence

from ppcore.errors import SettingsError, did_you_mean
from ppcore.rewrite.collapse import Collapse
from ppcore.rewrite.collapse_conjugate import CollapseConjugate
from ppcore.rewrite.protocol import Rewrite
from ppcore.rewrite.repeated_rows import RepeatedRows
from ppcore.rewrite.residuals import Residuals
from ppcore.rewrite.sufficient_statistics import SufficientStatistics


def algebra(without: Sequence[str] = ()) -> tuple[Rewrite, ...]:
    """Statistics first, then what they let be integrated out, then cheaper forms of the rest.

    Raises :class:`ppcore.errors.SettingsError` if ``without`` names no rewrite.

    >>> [r.name for r in algebra(without=("collapse", "repeated_rows", "residuals"))]
    ['sufficient_statistics', 'collapse_conjugate']
    """
    known: tuple[Rewrite, ...] = (
        SufficientStatistics(),
        CollapseConjugate(),
        Collapse(),
        RepeatedRows(),
        Residuals(),
    )
    names = [r.name for r in known]
    for name in without:
        if name not in names:
            raise SettingsError(f"There is no rewrite {name!r}. {did_you_mean(name, names)}")
    return tuple(r for r in known if r.name not in without)
