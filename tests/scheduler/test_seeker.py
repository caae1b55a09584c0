"""How a peer finds the keeper of a task, loses it, and finds the next."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from peerd.ids import PeerId
from peerd.link import messages as m
from peerd.rendezvous import ranked
from peerd.scheduler import seeker as sk
from tests.scheduler.world import TASK, key, member

NUMBERS = range(1, 7)
ORDER = ranked([key(n).peer_id for n in NUMBERS], TASK)
MEMBERS = tuple(member(n) for n in NUMBERS)


class Asker:
    """A seeker of the peer at `place` in the order, and what it ordered last."""

    def __init__(self, place: int = 5, synced: bool = True) -> None:
        self.seeker = sk.Seeker(ORDER[place], TASK)
        self.now = 0.0
        self.orders: list[sk.Order] = []
        self.event(sk.MembersNow(MEMBERS, synced))
        self.event(sk.Begin())

    def event(self, event: sk.Event) -> list[sk.Order]:
        self.orders = self.seeker.handle(event, self.now)
        self.seeker.validate()
        return self.orders

    def later(self, seconds: float) -> list[sk.Order]:
        end, orders = self.now + seconds, []
        while self.seeker.deadline() <= end:
            self.now = max(self.now, self.seeker.deadline())
            orders += self.seeker.expire(self.now)
            self.seeker.validate()
        self.now = end
        self.orders = orders
        return orders

    def enrolled(self, peer: PeerId, term: int = 1) -> list[sk.Order]:
        return self.event(sk.Heard(peer, m.Enrolled(TASK, term, None, 0.0, ())))

    def redirect(self, peer: PeerId, to: PeerId) -> list[sk.Order]:
        return self.event(sk.Heard(peer, m.Redirect(TASK, to, ("10.9.9.9:1",))))

    @property
    def asked(self) -> PeerId:
        (order,) = [x for x in self.orders if isinstance(x, sk.EnrolAt)]
        return order.peer


def test_the_first_in_order_is_asked_and_named() -> None:
    asker = Asker()
    (order,) = asker.orders
    assert isinstance(order, sk.EnrolAt)
    assert order.peer == ORDER[0]
    assert order.candidates == tuple(ORDER[:3])
    assert order.addresses
    assert asker.enrolled(ORDER[0], 7) == [sk.Settled(ORDER[0], 7)]


def test_nobody_is_asked_before_membership_is_synced() -> None:
    asker = Asker(synced=False)
    assert asker.orders == []
    asker.event(sk.MembersNow(MEMBERS, True))
    assert asker.asked == ORDER[0]


def test_who_is_unreachable_is_passed_over_and_named() -> None:
    asker = Asker()
    asker.event(sk.Unreachable(ORDER[0]))
    (order,) = asker.orders
    assert isinstance(order, sk.EnrolAt)
    assert order.peer == ORDER[1]
    assert order.unreachable == (ORDER[0],)


def test_who_does_not_answer_is_passed_over() -> None:
    asker = Asker()
    asker.later(3.1)
    assert asker.asked == ORDER[1]


def test_alone_a_peer_asks_itself() -> None:
    asker = Asker(place=3)
    for peer in ORDER[:3]:
        assert asker.asked == peer
        asker.event(sk.Unreachable(peer))
    assert asker.asked == ORDER[3]
    assert asker.enrolled(ORDER[3]) == [sk.Settled(ORDER[3], 1)]


def test_a_task_of_this_machine_alone_asks_nobody_else() -> None:
    seeker = sk.Seeker(ORDER[5], TASK, shared=False)
    seeker.handle(sk.MembersNow(MEMBERS, True), 0.0)
    (order,) = seeker.handle(sk.Begin(), 0.0)
    assert isinstance(order, sk.EnrolAt)
    assert (order.peer, order.candidates) == (ORDER[5], (ORDER[5],))


def test_a_redirect_is_followed_up_the_order() -> None:
    asker = Asker()
    asker.event(sk.Unreachable(ORDER[0]))
    asker.redirect(ORDER[1], ORDER[0])
    assert asker.asked == ORDER[0]  # Once more: the other can reach it.
    asker.event(sk.Unreachable(ORDER[0]))
    assert asker.asked == ORDER[1]
    asker.redirect(ORDER[1], ORDER[0])
    assert asker.asked == ORDER[1]  # And says again that it cannot.


def test_who_comes_back_is_asked_again_without_waiting_its_time_out() -> None:
    asker = Asker()
    asker.event(sk.Unreachable(ORDER[0]))
    assert asker.asked == ORDER[1]
    asker.enrolled(ORDER[1], 4)
    asker.event(sk.Reached(ORDER[0]))
    asker.event(sk.Unreachable(ORDER[1]))
    asker.event(sk.Unreachable(ORDER[1]))
    assert asker.asked == ORDER[0]


def test_a_link_does_not_excuse_who_was_silent() -> None:
    asker = Asker()
    asker.later(asker.seeker.config.answer_s)
    assert asker.asked == ORDER[1]
    asker.event(sk.Reached(ORDER[0]))
    asker.event(sk.Unreachable(ORDER[1]))
    assert asker.asked == ORDER[2]


def test_redirects_end() -> None:
    asker = Asker(place=5)
    for hop in range(20):
        if asker.asked == ORDER[5]:
            break
        asker.redirect(asker.asked, ORDER[hop % 3])
    assert asker.asked == ORDER[5]


def test_a_redirect_to_one_that_is_not_in_view_yet_is_followed_once() -> None:
    """A keeper stays although others rank better; who just started may not know it."""
    asker = Asker()
    stranger = key(100).peer_id
    asker.redirect(ORDER[0], stranger)
    assert asker.asked == stranger
    asker.event(sk.Unreachable(stranger))
    assert asker.asked == ORDER[0]
    asker.redirect(ORDER[0], stranger)
    asker.event(sk.Unreachable(stranger))
    assert asker.asked == ORDER[0]
    asker.redirect(ORDER[0], stranger)
    assert asker.asked == ORDER[0]  # And says that it cannot.


def test_a_broken_link_is_dialled_once_more_before_another_is_asked() -> None:
    asker = Asker()
    asker.enrolled(ORDER[0], 4)
    asker.event(sk.Unreachable(ORDER[0]))
    assert asker.orders[0] == sk.Unsettled(ORDER[0])
    assert asker.asked == ORDER[0]
    asker.event(sk.Unreachable(ORDER[0]))
    assert asker.asked == ORDER[1]
    order = asker.orders[-1]
    assert isinstance(order, sk.EnrolAt)
    assert order.prior_term == 4


def test_an_older_term_is_refused() -> None:
    asker = Asker()
    asker.enrolled(ORDER[0], 4)
    asker.event(sk.Unreachable(ORDER[0]))
    asker.event(sk.Unreachable(ORDER[0]))
    asker.enrolled(ORDER[1], 3)
    assert asker.seeker.keeper is None
    assert asker.asked == ORDER[2]


def test_messages_of_others_and_of_older_terms_do_not_count() -> None:
    asker = Asker()
    asker.enrolled(ORDER[0], 4)
    update = m.RosterUpdate(TASK, 4, None, (), ())
    assert asker.seeker.accepts(ORDER[0], update)
    assert not asker.seeker.accepts(ORDER[1], update)
    assert not asker.seeker.accepts(ORDER[0], m.RosterUpdate(TASK, 3, None, (), ()))


def test_a_keeper_that_raised_its_term_is_followed() -> None:
    asker = Asker()
    asker.enrolled(ORDER[0], 4)
    update = m.RosterUpdate(TASK, 5, None, (), ())
    assert asker.event(sk.Heard(ORDER[0], update)) == [sk.Settled(ORDER[0], 5)]


def test_a_keeper_that_neither_grants_nor_names_a_reader_counts_as_dead() -> None:
    asker = Asker()
    asker.enrolled(ORDER[0], 4)
    asker.event(sk.Waiting(True))
    answering(asker, 6.0)
    named = m.RosterPeer(ORDER[3], (), "", 0, False, False)
    asker.event(sk.Heard(ORDER[0], m.RosterUpdate(TASK, 4, None, (named,), ())))
    assert not any(isinstance(x, sk.Unsettled) for x in answering(asker, 9.0))
    assert sk.Unsettled(ORDER[0]) in answering(asker, 2.0), "that it answers is not enough"


def answering(asker: Asker, seconds: float, took_s: float = 0.1) -> list[sk.Order]:
    """The best-ranked is there: it answers, and does nothing more."""
    end, orders = asker.now + seconds, []
    while asker.now < end:
        new = asker.later(took_s)
        orders += new
        if any(isinstance(x, sk.EnrolAt) and x.peer == ORDER[0] for x in new):
            asker.enrolled(ORDER[0], 4)
    return orders


def test_a_keeper_that_is_not_heard_of_while_we_wait_is_asked_once_more_and_left_soon() -> None:
    asker = Asker()
    asker.enrolled(ORDER[0], 4)
    asker.event(sk.Waiting(True))
    assert asker.later(1.9) == []
    asker.later(0.2)
    assert asker.asked == ORDER[0]
    assert asker.seeker.keeper == ORDER[0], "until it is known not to answer"
    asker.later(3.1)
    assert asker.orders[0] == sk.Unsettled(ORDER[0])
    assert asker.asked == ORDER[1]


def test_the_time_a_keeper_has_to_answer_is_what_it_needed_before() -> None:
    quick, busy = Asker(), Asker()
    for asker, took_s in ((quick, 0.01), (busy, 0.7)):
        asker.enrolled(ORDER[0], 4)
        asker.event(sk.Waiting(True))
        asker.later(2.0)
        asker.later(took_s)
        asker.enrolled(ORDER[0], 4)
        asker.later(2.0)
        assert asker.asked == ORDER[0]
    assert quick.later(1.9) == [] == busy.later(2.1)
    assert sk.Unsettled(ORDER[0]) in quick.later(0.2)
    assert busy.later(2.5) == []
    assert sk.Unsettled(ORDER[0]) in busy.later(3.0)


def test_a_sign_of_the_keeper_is_as_good_as_an_answer() -> None:
    asker = Asker()
    asker.enrolled(ORDER[0], 4)
    asker.event(sk.Waiting(True))
    asker.later(2.1)
    named = m.RosterPeer(ORDER[3], (), "", 0, False, False)
    asker.event(sk.Heard(ORDER[0], m.RosterUpdate(TASK, 4, None, (named,), ())))
    assert asker.later(1.9) == []


def test_a_keeper_that_answers_a_check_with_an_older_term_is_left() -> None:
    """It restarted and lost what it knew: nobody may keep and be looked for at once."""
    asker = Asker()
    asker.enrolled(ORDER[0], 4)
    asker.event(sk.Waiting(True))
    asker.later(2.1)
    left, order = asker.enrolled(ORDER[0], 3)
    assert left == sk.Unsettled(ORDER[0])
    assert isinstance(order, sk.EnrolAt)
    assert order.peer == ORDER[1]


def test_a_keeper_whose_link_is_silent_is_asked_at_once_and_left_soon() -> None:
    """It was stopped: its links stand for 10 s yet, and nobody else grants meanwhile."""
    asker = Asker()
    asker.enrolled(ORDER[0], 4)
    asker.event(sk.Waiting(False))
    asker.event(sk.Silent(ORDER[1]))
    assert asker.orders == [], "it is not our keeper"
    asker.event(sk.Silent(ORDER[0]))
    assert asker.asked == ORDER[0]
    asker.event(sk.Silent(ORDER[0]))
    assert asker.later(1.9) == []
    assert sk.Unsettled(ORDER[0]) in asker.later(0.2)
    assert asker.asked == ORDER[1]


def test_who_is_served_by_others_does_not_suspect_its_keeper() -> None:
    asker = Asker()
    asker.enrolled(ORDER[0], 4)
    asker.event(sk.Waiting(False))
    assert asker.later(100.0) == []


@settings(deadline=None)
@given(st.data())
def test_whatever_happens_somebody_is_asked_or_keeps(data: st.DataObject) -> None:
    """No order of answers, losses and redirects leaves a peer with nobody."""
    asker = Asker(place=data.draw(st.integers(0, 5)))
    peers = st.sampled_from(ORDER)
    for _ in range(30):
        match data.draw(st.integers(0, 4)):
            case 0:
                asker.enrolled(data.draw(peers), data.draw(st.integers(0, 5)))
            case 1:
                asker.redirect(data.draw(peers), data.draw(peers))
            case 2:
                asker.event(sk.Unreachable(data.draw(peers)))
            case 3:
                asker.event(sk.Waiting(data.draw(st.booleans())))
            case _:
                asker.later(data.draw(st.sampled_from([0.1, 3.0, 20.0])))
        busy = asker.seeker.deadline() < float("inf")
        assert busy or asker.seeker.keeper is not None


def test_a_keeper_that_alone_is_late_is_left_at_once_and_asked_again_later() -> None:
    asker = Asker()
    asker.enrolled(ORDER[0])
    asker.event(sk.Silent(ORDER[1], late=True))
    assert asker.orders == [], "it is not our keeper"
    asker.event(sk.Silent(ORDER[0], late=True))
    assert asker.orders[0] == sk.Unsettled(ORDER[0])
    assert asker.asked == ORDER[1]
    (order,) = [x for x in asker.orders if isinstance(x, sk.EnrolAt)]
    assert order.unreachable == (ORDER[0],)
    asker.enrolled(ORDER[1])
    asker.later(5.0)
    asker.event(sk.Unreachable(ORDER[1]))
    asker.event(sk.Unreachable(ORDER[1]))
    assert asker.asked == ORDER[0]
