"""How a model may be captured, and what comes next after what failed: judged by one function.

The usual capture is non-strict, with example sizes that leave the requested dimensions free. Where it fails, the error
says what may help: sizes that are tied, the caller's own sizes, a strict capture, or a strategy of a plugin.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from onnxport.kit import Strategy, Turn

from onnxport_builtin.attempts.diagnosis import is_constraint, is_data_dependent, user_line

if TYPE_CHECKING:
    from torch.export import ExportedProgram


class Purpose(Enum):
    """What an attempt is made for; its value is its name in messages."""

    USUAL = "non-strict"
    TIED = "non-strict, sizes tied"
    AS_GIVEN = "non-strict, sizes as given"
    STRICT = "strict"
    PLUGIN = "by a plugin's strategy"
    RELAXED = "relaxed"
    NUMBERS = "strict, since sizes became numbers"
    SEPARATED = "non-strict, equal sizes made different"


@dataclass(frozen=True, slots=True)
class Plan:
    """One way to capture.

    Attributes:
        purpose: what it is made for.
        sizes: example sizes that differ from the caller's, by dimension.
        is_strict: torch reads the code of forward instead of running it.
        is_relaxed: requested dimensions are hints, which the model may contradict.
        is_oblivious: sizes of 0 and 1 are no constants.
        strategy: of a plugin.
        turn: why it is the strategy's turn.
    """

    purpose: Purpose
    sizes: Mapping[Any, int] = field(default_factory=dict)
    is_strict: bool = False
    is_relaxed: bool = False
    is_oblivious: bool = False
    strategy: Strategy | None = None
    turn: Turn = Turn.NEVER

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.purpose.value if self.strategy is None else self.strategy.name


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an attempt: a program, or an error.

    Attributes:
        plan: how it was made.
        program: the captured program.
        error: why there is none.
        is_final: no other way can give another answer, as a plugin says.
    """

    plan: Plan
    program: ExportedProgram | None = None
    error: Exception | None = None
    is_final: bool = False

    @property
    def place(self) -> str:
        """The model's line at which it failed; empty where it is unknown, or it didn't."""
        return "" if self.error is None else user_line(self.error)


class Verdict(Enum):
    """That no further attempt is made."""

    CAPTURED = "there is a program"
    CONTRADICTED = "the model contradicts the requested dimensions"
    FAILED = "no way is left"


def usual(sizes: Mapping[Any, int]) -> Plan:
    """The first attempt."""
    return Plan(Purpose.USUAL, sizes)


def next_step(
    outcomes: Sequence[Outcome], coupled: Mapping[Any, int] | None, strategies: Sequence[Strategy]
) -> Plan | Verdict:
    """What follows the attempts so far.

    Args:
        outcomes: at least one.
        coupled: example sizes in which what is equal stays equal; None where the example's sizes can't be changed.
        strategies: of plugins.
    """
    last = outcomes[-1]
    if last.error is None:
        return Verdict.CAPTURED
    plan, purpose = last.plan, last.plan.purpose
    wanted = Turn.INSTEAD if is_data_dependent(last.error) else Turn.LAST  # values are no reason to try others last
    if last.is_final and all(_turn(each, last.error) < wanted for each in strategies):
        return Verdict.FAILED
    if coupled is None:
        return Plan(Purpose.STRICT, is_strict=True) if purpose is Purpose.USUAL else Verdict.FAILED
    enlarged = outcomes[0].plan.sizes
    if purpose is Purpose.USUAL or plan.turn is Turn.NOW:
        if strategy := _asked_for(last, outcomes, strategies):
            return Plan(Purpose.PLUGIN, enlarged, strategy=strategy, turn=Turn.NOW)
        if enlarged and not is_constraint(last.error) and not is_data_dependent(last.error):
            # The model may tie the sizes that were changed to others, or depend on the example's own.
            return Plan(Purpose.TIED, coupled) if coupled != enlarged else _as_given()
    if purpose is Purpose.TIED:
        return _as_given()
    is_contradicted = is_constraint(last.error)
    if is_contradicted and purpose is not Purpose.STRICT and plan.turn in (Turn.NEVER, Turn.NOW):
        return Verdict.CONTRADICTED
    wanted = Turn.LAST if purpose is Purpose.STRICT or plan.turn is Turn.LAST else Turn.INSTEAD
    errors = [last.error] if wanted is Turn.INSTEAD else told_errors(outcomes)
    untried = [each for each in strategies if all(each is not outcome.plan.strategy for outcome in outcomes)]
    for strategy in untried:
        if any(_turn(strategy, e) >= wanted for e in errors if wanted is Turn.INSTEAD or not is_data_dependent(e)):
            return Plan(Purpose.PLUGIN, enlarged, strategy=strategy, turn=wanted)
    if wanted is Turn.INSTEAD and plan.turn is not Turn.INSTEAD:
        return Plan(Purpose.STRICT, enlarged, is_strict=True)
    return Verdict.CONTRADICTED if is_contradicted else Verdict.FAILED


def told(outcomes: Sequence[Outcome]) -> Iterator[Outcome]:
    """The attempts that failed, but for those whose error was a call for another strategy."""
    for outcome, following in zip(outcomes, [*outcomes[1:], None]):
        if outcome.error is not None and (following is None or following.plan.turn is not Turn.NOW):
            yield outcome


def told_errors(outcomes: Sequence[Outcome]) -> list[Exception]:
    """The errors of the attempts that are told."""
    return [outcome.error for outcome in told(outcomes) if outcome.error is not None]


def _as_given() -> Plan:
    return Plan(Purpose.AS_GIVEN, is_oblivious=True)


def _asked_for(last: Outcome, outcomes: Sequence[Outcome], strategies: Sequence[Strategy]) -> Strategy | None:
    """The strategy that an error calls for: again, where the first time has found what it can't follow."""
    if last.error is None or sum(outcome.plan.turn is Turn.NOW for outcome in outcomes) > 1:
        return None
    return next((each for each in strategies if _turn(each, last.error) is Turn.NOW), None)


def _turn(strategy: Strategy, error: Exception) -> Turn:
    return Turn(strategy.turn(error))
