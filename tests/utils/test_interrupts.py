"""Ctrl-C and SIGTERM: noted until a step ends, the second one at once, SIGTERM as Ctrl-C."""

import os
import signal

import pytest

from crystalgfn.utils.interrupts import Interrupts, Terminated, Terminations


@pytest.fixture
def plain_signals():
    """The handlers of an interpreter as it starts."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_the_first_is_noted_and_the_second_interrupts(plain_signals, first, second):
    with Terminations(), Interrupts() as interrupts:
        os.kill(os.getpid(), first)
        assert interrupts.seen == 1
        kinds = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: Terminated}
        with pytest.raises(KeyboardInterrupt) as noted:
            interrupts.interrupt()
        assert noted.type is kinds[first]
        with pytest.raises(KeyboardInterrupt) as caught:
            os.kill(os.getpid(), second)
        assert interrupts.seen == 2 and caught.type is kinds[second]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_patient_one_never_interrupts(plain_signals):
    with Terminations(), Interrupts(patient=True) as interrupts:
        for number in (signal.SIGINT, signal.SIGTERM) * 3:
            os.kill(os.getpid(), number)
        assert interrupts.seen == 6


def test_sigterm_is_an_interrupt_at_once_outside_of_a_step(plain_signals):
    with Terminations(), pytest.raises(Terminated):
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_who_has_taken_charge_of_a_signal_keeps_it(plain_signals):
    seen = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: seen.append(1))
    with Terminations(), Interrupts() as interrupts:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
    assert len(seen) == 2 and interrupts.seen == 0


def test_nothing_is_raised_where_nothing_came(plain_signals):
    with Terminations(), Interrupts() as interrupts:
        interrupts.interrupt()
    assert interrupts.seen == 0
