"""Counts of a walk's nodes: those that a translation served, that were decomposed, or refused."""

from __future__ import annotations

import contextlib
import copy
from collections import Counter
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from onnxport.errors import Refusal, Unsupported
from onnxport.records.translations import name_of
from onnxport.vocabulary import provenance

if TYPE_CHECKING:
    import torch.fx


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a node's candidate or of its decomposition.

    Attributes:
        value: what stands for the node, where it was served.
        reasons: why it wasn't; empty where it was.
    """

    value: Any = None
    reasons: tuple[str, ...] = ()


@dataclass
class Trial:
    """Nodes that are translated on trial.

    Attributes:
        reasons: why they were given up; empty where they weren't.
    """

    tally: Tally
    start: int
    reasons: list[str] = field(default_factory=list)

    def expect_served(self) -> None:
        """Give them up where one of them was refused.

        Raises:
            Unsupported: one was.
        """
        if self.tally.refused > self.start:
            raise Unsupported("an operator in it has no translation there")


class Tally:
    """Counts by operator.

    Args:
        advice: what to suggest for an operator that nothing serves.

    Attributes:
        refusals: of each operator that was refused.
        served: how many nodes each translation served, by (operator, translation, plugin).
        decomposed: how many nodes of each operator were decomposed.
    """

    def __init__(self, advice: Callable[[str], str]) -> None:
        self._advice = advice
        self.refusals: dict[str, Refusal] = {}
        self.served: Counter[tuple[str, str, str]] = Counter()
        self.decomposed: Counter[str] = Counter()

    @property
    def refused(self) -> int:
        """The number of nodes that were refused."""
        return sum(refusal.count for refusal in self.refusals.values())

    def refuse(self, node: torch.fx.Node, reasons: Sequence[str]) -> None:
        """Note that nothing serves a node."""
        name, source = name_of(node.target), provenance.source_line(node)
        known = self.refusals.get(name)
        if known is None:
            module = provenance.module_path(node)
            listed = list(reasons) or ["no translation"]
            self.refusals[name] = Refusal(name, 1, module, source, listed, self._advice(name), [source])
            return
        known.count += 1
        known.sources += [] if source in known.sources else [source]
        known.reasons.extend(reason for reason in reasons if reason not in known.reasons)

    def withdraw(self, known: Container[str]) -> list[Refusal]:
        """Take back the refusals of all operators but those that are known."""
        return [self.refusals.pop(target) for target in list(self.refusals) if target not in known]

    @contextlib.contextmanager
    def trial(self) -> Iterator[Trial]:
        """While it lasts, nodes are translated on trial: where Unsupported is raised, their counts are taken back."""
        before = copy.deepcopy(self.refusals), self.served.copy(), self.decomposed.copy()
        trial = Trial(self, self.refused)
        try:
            yield trial
        except Unsupported as refusal:
            trial.reasons.append(refusal.reason)
            self.refusals, self.served, self.decomposed = before
