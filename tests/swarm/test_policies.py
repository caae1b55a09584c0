"""The policies of a swarm, one story each: what is picked, from whom, and who is served."""

from __future__ import annotations

from random import Random

from peerd.ids import PeerId, PieceIndex, VersionId
from peerd.pieces import PieceSet
from peerd.swarm import events as ev
from peerd.swarm.picker import RANDOM_FIRST, Picker
from peerd.swarm.rarity import Rarity
from peerd.swarm.turns import (
    HANDS_MAX,
    HANDS_START,
    REQUESTS_MAX,
    SOON_S,
    SPREAD_MAX,
    Turns,
)
from tests.swarm.test_download import ANN, BOB, PIECE, opened, requests

VERSION = VersionId("b" * 64)


def test_counts_of_all_pieces_at_once_are_the_counts_of_each() -> None:
    rng, rarity, counts = Random(1), Rarity(), [0] * 64
    held: list[int] = []
    for _ in range(300):
        if held and rng.random() < 0.4:
            bits = held.pop(rng.randrange(len(held)))
            rarity.take(bits)
            change = -1
        else:
            bits = rng.getrandbits(64)
            held.append(bits)
            rarity.add(bits)
            change = 1
        for index in range(64):
            counts[index] += change * (bits >> index & 1)
        asked = rng.getrandbits(64) | 1
        fewest = min(counts[i] for i in range(64) if asked >> i & 1)
        rarest = {i for i in range(64) if asked >> i & 1 and counts[i] == fewest}
        assert {i for i in range(64) if rarity.rarest(asked) >> i & 1} == rarest
        assert [rarity.of(i) for i in range(64)] == counts


def test_the_first_pieces_are_random_then_the_rarest_come() -> None:
    firsts = set()
    for seed in range(40):
        picker = Picker(32, PieceSet(32), Random(seed))
        picker.rarity.add((1 << 31) - 1)  # Everybody has all but the last one.
        firsts.update(picker.pick(PieceSet.full(32), 1))
    assert len(firsts) > 10, "who has nothing takes what is to be had"
    held = PieceSet(32, range(RANDOM_FIRST))
    picker = Picker(32, held, Random(1))
    picker.rarity.add((1 << 31) - 1)
    assert picker.pick(PieceSet.full(32), 1) == [31]


def test_rare_is_what_few_on_this_side_of_the_border_have() -> None:
    """Else it stays with the one that brought it in, for beyond it is common."""
    picker = Picker(32, PieceSet(32, range(RANDOM_FIRST)), Random(1), borders=True)
    everything, brought = (1 << 32) - 1, 1 << 20
    for _ in range(4):
        picker.add_parent(everything, border="eu")
    for _ in range(3):
        picker.add_parent(everything ^ brought, border=None)
    picker.add_parent(brought, border=None)
    assert picker.pick(PieceSet.full(32), 1) == [20]
    picker.take_parent(everything ^ brought, border=None)
    picker.take_parent(everything, border="eu")
    assert picker.rarity.of(20) == 4
    assert picker.nearby.of(20) == 1


def test_what_a_reader_waits_for_comes_first_and_in_order() -> None:
    picker = Picker(32, PieceSet(32, range(8)), Random(1))
    picker.wait_for(7, 20, 3)
    assert picker.pick(PieceSet.full(32), 5)[:3] == [20, 21, 22]
    picker.wait_for(7, 0, 0)
    assert not picker.urgent


def test_a_piece_is_taken_from_a_slow_parent_by_one_that_is_idle() -> None:
    core = opened(12, held=(8, 9, 10, 11))
    asked = requests(core.handle(ev.ParentJoined(ANN, PieceSet(12, (0, 1))), 0.0))[ANN]
    core.handle(ev.PieceArrived(ANN, PieceIndex(asked[0]), PIECE), 2.0)  # Two seconds for one.
    core.handle(ev.ParentJoined(BOB, PieceSet(12, (0, 1))), 2.0)
    core.parents.joined[BOB].rate_bytes_s = 100.0 * PIECE
    orders = core.expire(2.1)
    assert requests(orders)[BOB] == [asked[1]]
    assert ev.CancelPieces(ANN, (asked[1],)) in orders, "other pieces are wanted: not twice"
    core.validate()


def test_a_parent_that_says_have_is_not_robbed_because_others_come_first() -> None:
    core = opened(12, held=(8, 9, 10, 11))
    core.handle(ev.ParentJoined(ANN, PieceSet(12, (0,))), 0.0)
    core.handle(ev.ParentHas(ANN, (1,)), 2.9)
    assert not any(isinstance(order, ev.Complain) for order in core.expire(3.5))
    assert any(isinstance(order, ev.Complain) for order in core.expire(40.0))


def test_parents_are_asked_again_when_nothing_is_known_to_be_had() -> None:
    core = opened(12, held=(8, 9, 10, 11))
    core.handle(ev.ParentJoined(ANN, PieceSet(12)), 0.0)
    assert ev.JoinAgain() not in core.expire(0.5)
    assert ev.JoinAgain() in core.expire(3.0)
    assert ev.JoinAgain() not in core.expire(3.1)


def child(number: int) -> PeerId:
    return PeerId(f"child{number}")


def test_children_take_turns_and_few_pieces_are_in_hand() -> None:
    turns = Turns()
    for number in range(20):
        assert not turns.asked(child(number), [(VERSION, index) for index in range(4)], 0)
    taken = []
    while (turn := turns.next(0.0)) is not None:
        taken.append(turn[0])
    assert taken == [child(number) for number in range(HANDS_START)]
    turns.sent(taken[0], (VERSION, 0), SOON_S / 2, whole=True)
    assert turns.hands == HANDS_START + 1, "it went fast: one more"
    assert turns.next(SOON_S / 2) == (child(HANDS_START), (VERSION, 0)), "the next child's turn"


def test_a_slow_uplink_feeds_one_child_at_a_time() -> None:
    turns, now = Turns(), 0.0
    for number in range(8):
        turns.asked(child(number), [(VERSION, index) for index in range(8)], 0)
    in_hand = []
    for _ in range(60):
        while (turn := turns.next(now)) is not None:
            in_hand.append((*turn, now))
        peer, item, _ = in_hand.pop(0)
        now += 1.0 * max(1, len(in_hand) + 1)  # A piece a second, shared by those in hand.
        turns.took_s = 5.0  # What it takes here is no child's fault.
        turns.sent(peer, item, now, whole=True)
        if not any(each.waiting for each in turns.children.values()):
            break
    assert turns.hands < HANDS_START < HANDS_MAX


def test_a_child_that_does_not_take_its_piece_holds_no_hand_for_ever() -> None:
    turns = Turns()
    turns.asked(child(0), [(VERSION, index) for index in range(4)], 0)
    for _ in range(HANDS_START):
        assert turns.next(0.0) is not None
    turns.asked(child(1), [(VERSION, 9)], 0)
    assert turns.next(0.1) is None
    due = turns.deadline(0.1)
    assert turns.next(due + 0.01) == (child(1), (VERSION, 9))


def test_what_is_in_hand_is_not_late_as_long_as_its_bytes_leave() -> None:
    turns, now, begun = Turns(), 0.0, 0
    for number in range(20):
        turns.asked(child(number), [(VERSION, 0)], 0)
    while now < 30.0:
        turns.went(1000.0 * now, now)
        while turns.next(now) is not None:
            begun += 1
        now = turns.deadline(now) + 0.001
    assert begun == HANDS_START, "the uplink is slow: with more in hand none would be whole"
    turns.cancelled(child(0), {(VERSION, 0)})
    turns.sent(child(0), (VERSION, 0), now, whole=False)
    assert turns.hands == HANDS_START - 1, "in hand for so long, and not whole yet"


def test_who_takes_nothing_gets_no_more_while_others_wait() -> None:
    turns = Turns()
    turns.asked(child(0), [(VERSION, index) for index in range(9)], 0)
    turns.hands = 2
    for _ in range(2):
        assert turns.next(0.0) is not None
    turns.asked(child(1), [(VERSION, 9)], 0)
    assert turns.next(0.0) is None
    assert turns.next(turns.deadline(0.0)) == (child(1), (VERSION, 9))


def test_on_a_slow_uplink_what_is_late_is_no_child_s_fault() -> None:
    turns, now, begun = Turns(), 0.0, 0
    for number in range(20):
        turns.asked(child(number), [(VERSION, 0)], 0)
    while now < 30.0:
        while turns.next(now) is not None:
            begun += 1
        now = turns.deadline(now) + 0.001
    assert begun <= HANDS_START + 4, "all at once, none of them would ever be whole"
    for number in range(HANDS_START):
        turns.sent(child(number), (VERSION, 0), now, whole=True)
    assert turns.took_s > 4.0, "it knows now how slow it is"


def test_a_child_that_others_overtook_is_what_is_slow() -> None:
    turns = Turns()
    for number in range(HANDS_START + 3):
        turns.asked(child(number), [(VERSION, number), (VERSION, 100 + number)], 0)
    for _ in range(HANDS_START):
        assert turns.next(0.0) is not None
    turns.sent(child(0), (VERSION, 0), 0.1, whole=True)
    assert turns.next(0.1) == (child(HANDS_START), (VERSION, HANDS_START))
    assert turns.next(0.1) == (child(HANDS_START + 1), (VERSION, HANDS_START + 1))
    turns.sent(child(HANDS_START), (VERSION, HANDS_START), 0.2, whole=True)
    while turns.next(0.2) is not None:
        pass
    took_s, late = turns.took_s, turns.deadline(0.2)
    assert turns.next(late) is not None, "the three that were begun first count no more"
    turns.sent(child(1), (VERSION, 1), 20.0, whole=True)
    assert turns.took_s == took_s, "nor does the time that they took"


def test_a_child_that_asks_too_much_is_told_so_and_one_that_cancels_is_broken_off() -> None:
    turns = Turns()
    items = [(VERSION, index) for index in range(REQUESTS_MAX + 2)]
    assert turns.asked(child(0), items, 0) == items[-2:]
    first = turns.next(0.0)
    assert first is not None
    assert turns.cancelled(child(0), {first[1], items[5]}) == [first[1]]
    turns.gone(child(0))
    assert turns.next(0.0) is None


def test_a_piece_that_nobody_has_yet_goes_to_one_child_before_any_second_copy() -> None:
    turns, taken = Turns(), []
    for number in range(3):
        turns.asked(child(number), [(VERSION, 0), (VERSION, 1), (VERSION, 2)], 0)
    for _ in range(3):
        turn = turns.next(0.0)
        assert turn is not None
        taken.append(turn)
    assert taken == [(child(number), (VERSION, number)) for number in range(3)]
    turn = turns.next(0.0)
    assert turn == (child(0), (VERSION, 1)), "then second copies, in the order of the turns"


def test_what_was_read_from_the_origin_here_goes_before_all_else() -> None:
    turns = Turns(lambda item: item[1] >= 100)
    turns.asked(child(0), [(VERSION, index) for index in range(4)], 0)
    turns.asked(child(1), [(VERSION, 4), (VERSION, 100)], 0)
    turns.asked(child(2), [(VERSION, 100), (VERSION, 101)], 0)
    for number in (3, 4):
        turns.asked(child(number), [(VERSION, 2 + number)], 0)
    taken = []
    for _ in range(3):
        turn = turns.next(0.0)
        assert turn is not None
        taken.append(turn)
    wanted = [(child(1), 100), (child(2), 101), (child(0), 0)]
    assert taken == [(peer, (VERSION, index)) for peer, index in wanted]


def test_a_child_that_asks_for_fresh_pieces_goes_first_but_not_for_ever() -> None:
    turns, taken = Turns(), []
    for index in range(8):  # Went to somebody before.
        turns.asked(child(9), [(VERSION, index)], 0)
        assert turns.next(0.0) is not None
        turns.sent(child(9), (VERSION, index), 0.0, whole=True)
    turns.asked(child(0), [(VERSION, index) for index in range(8)], 0)
    for number in (1, 2, 3):
        turns.asked(child(number), [(VERSION, 100 * number + index) for index in range(8)], 0)
    for _ in range(12):
        turn = turns.next(0.0)
        assert turn is not None
        taken.append(turn[0])
        turns.sent(*turn, 0.0, whole=True)
    assert taken[:3] == [child(1), child(2), child(0)], "it was passed over by half of the others"
    assert taken.count(child(0)) >= 12 // 4 - 1, "and so again: nearly its share"


def test_second_copies_go_to_who_lacks_most_but_not_for_ever() -> None:
    turns, taken = Turns(), []
    for index in range(16):  # Went to somebody before.
        turns.asked(child(9), [(VERSION, index)], 0)
        assert turns.next(0.0) is not None
        turns.sent(child(9), (VERSION, index), 0.0, whole=True)
    for number, lacking in enumerate((100, 100, 700, 100)):
        turns.asked(child(number), [(VERSION, index) for index in range(16)], lacking)
    for _ in range(12):
        turn = turns.next(0.0)
        assert turn is not None
        taken.append(turn[0])
        turns.sent(*turn, 0.0, whole=True)
    assert taken[:4] == [child(2), child(2), child(0), child(1)], "past half of the others"
    assert taken.count(child(2)) >= 5
    assert min(taken.count(child(number)) for number in (0, 1, 3)) >= 2, "whatever it says"


def test_who_lacks_most_is_not_preferred_while_it_takes_a_piece() -> None:
    turns = Turns()
    for index in range(4):
        turns.asked(child(9), [(VERSION, index)], 0)
        assert turns.next(0.0) is not None
        turns.sent(child(9), (VERSION, index), 0.0, whole=True)
    for number, lacking in enumerate((100, 700, 100)):
        turns.asked(child(number), [(VERSION, index) for index in range(4)], lacking)
    taken = [turn[0] for _ in range(3) if (turn := turns.next(0.0)) is not None]
    assert taken == [child(1), child(0), child(2)]


def test_of_several_contents_three_pieces_of_four_are_of_the_first_in_order() -> None:
    turns, taken = Turns(), []
    later, sooner = VersionId("c" * 64), VersionId("d" * 64)
    turns.order({later: 1, sooner: 0}, until=10.0)
    for number in range(4):
        turns.asked(child(number), [(later, index) for index in range(8)], 20)
        turns.asked(child(number), [(sooner, index) for index in range(8)], 20)
    for step in range(16):
        turn = turns.next(0.01 * step)
        assert turn is not None
        taken.append(turn[1][0])
        turns.sent(*turn, 0.01 * step + 0.005, whole=True)
    assert taken.count(sooner) == 12
    assert later in taken[:4], "none starves"
    turn = turns.next(11.0)
    assert turn is not None, "what was said counts no more"
    turns.order({later: 1, sooner: 0}, until=20.0)
    for number in range(4):
        turns.cancelled(child(number), {(sooner, index) for index in range(8)})
    turn = turns.next(12.0)
    assert turn is not None
    assert turn[1][0] == later, "nothing waits for who does not ask"


def test_contents_behind_have_a_quarter_of_what_is_in_hand() -> None:
    """All in hand share the uplink: with few children all that is asked for is in hand."""
    turns, later, sooner = Turns(), VersionId("c" * 64), VersionId("d" * 64)
    turns.order({later: 1, sooner: 0}, until=10.0)
    turns.hands = 8
    for version, few in ((later, 8), (sooner, 2)):
        turns.asked(child(0), [(version, index) for index in range(few)], 20)
        turns.asked(child(1), [(version, index) for index in range(few)], 20)
    taken = []
    while (turn := turns.next(0.0)) is not None:
        taken.append(turn)
    assert sum(item[0] == later for _, item in taken) == 2
    assert sum(item[0] == sooner for _, item in taken) == 4, "all that was asked for"
    for peer, item in taken:
        turns.sent(peer, item, 0.1, whole=True)
    assert [turns.next(0.1) is not None for _ in range(9)] == [True] * 8 + [False], "nobody else"


def test_what_was_read_here_goes_first_to_whom_a_leader_named() -> None:
    turns = Turns(lambda item: item[1] < 10)
    turns.feed_first(VERSION, [child(3), PeerId("a stranger")], until=10.0)
    for number in range(4):
        turns.asked(child(number), [(VERSION, number), (VERSION, 10 + number)], 20)
    turns.hands = 4
    order = [turns.next(0.0) for _ in range(4)]
    assert order[0] == (child(3), (VERSION, 3))
    assert order[1] == (child(0), (VERSION, 0)), "then the others, with what was read here"
    again = Turns(lambda item: True)
    again.feed_first(VERSION, [child(3)], until=10.0)
    again.feed_first(VERSION, [], until=20.0)
    for number in range(4):
        again.asked(child(number), [(VERSION, number)], 20)
    assert again.next(0.0) == (child(0), (VERSION, 0)), "nobody is named any more"


def test_a_name_that_is_too_old_or_does_not_ask_holds_up_nobody() -> None:
    for until, named in ((1.0, child(1)), (10.0, PeerId("a stranger"))):
        turns = Turns(lambda item: True)
        turns.feed_first(VERSION, [named], until=until)
        for number in range(2):
            turns.asked(child(number), [(VERSION, number)], 20)
        assert turns.next(2.0) == (child(0), (VERSION, 0))


def test_a_piece_that_was_broken_off_is_fresh_again() -> None:
    turns = Turns()
    turns.asked(child(0), [(VERSION, 5)], 0)
    assert turns.next(0.0) == (child(0), (VERSION, 5))
    turns.sent(child(0), (VERSION, 5), 0.0, whole=False)
    turns.asked(child(1), [(VERSION, 4)], 0)
    assert turns.next(0.0) == (child(1), (VERSION, 4))
    turns.asked(child(2), [(VERSION, 4), (VERSION, 5)], 0)
    assert turns.next(0.0) == (child(2), (VERSION, 5))


def test_it_is_remembered_of_so_many_pieces_that_they_went_to_somebody() -> None:
    turns = Turns()
    for index in range(SPREAD_MAX + 3):
        turns.asked(child(0), [(VERSION, index)], 0)
        assert turns.next(0.0) == (child(0), (VERSION, index))
        turns.sent(child(0), (VERSION, index), 0.0, whole=True)
    assert len(turns.spread) == SPREAD_MAX
    turns.asked(child(0), [(VERSION, SPREAD_MAX), (VERSION, 0)], 0)
    assert turns.next(0.0) == (child(0), (VERSION, 0)), "forgotten: as if nobody had it"


def test_what_is_due_is_never_due_again_at_once() -> None:
    rng = Random(7)
    for _ in range(3000):
        turns = Turns()
        now = rng.random() * 1e6
        turns.took_s = rng.random()
        turns.asked(child(0), [(VERSION, 0)], 0)
        assert turns.next(now) is not None
        for _ in range(5):
            due = turns.deadline(now)
            assert due > now
            now = due
