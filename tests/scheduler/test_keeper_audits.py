"""Readers that lie are found by a second and a third reading, and named to all."""

from __future__ import annotations

import random

from peerd.ids import PieceIndex, VersionId
from peerd.link import messages as m
from peerd.link.messages import LeaseKind
from peerd.manifest import Attestation, VersionInfo
from peerd.scheduler.keeper_audits import Audits
from peerd.scheduler.keeper_events import KeeperConfig
from tests.scheduler.desk import Desk
from tests.scheduler.world import key

ALWAYS = KeeperConfig(audit_share=1.0, audit_budget=1.0, ramp_first=64)
NEVER = KeeperConfig(audit_share=0.0, ramp_first=64)


def read_by(config: KeeperConfig, liar: bool, numbers: int = 4) -> tuple[Desk, VersionInfo]:
    """Four pieces; the second in order reads all of them, the others come afterwards."""
    desk = Desk(range(1, numbers + 1), config=config)
    reader = desk.order[1]
    desk.enrol(reader, room=1)
    desk.later(1.0)
    desk.ask(reader, 1)
    version = desk.resolve(reader, 4)
    while any(x.kind is LeaseKind.READ for x in desk.leases()):
        desk.finish(reader, desk.leases(reader)[0], lie=liar)
    return desk, version


def audits(desk: Desk) -> list[m.LeaseInfo]:
    return [x for x in desk.leases() if x.kind is LeaseKind.AUDIT]


def answer(desk: Desk, audit: m.LeaseInfo, lie: bool = False) -> None:
    holder = next(n for n in desk.numbers if desk.id(n) == audit.holder)
    desk.finish(holder, audit, lie=lie)


def test_nobody_audits_what_it_read_itself() -> None:
    desk, _ = read_by(ALWAYS, liar=False)
    assert not audits(desk)
    desk.enrol(desk.order[2], room=4)
    assert {x.holder for x in audits(desk)} == {desk.id(desk.order[2])}


def test_an_audit_that_agrees_ends_there() -> None:
    desk, _ = read_by(ALWAYS, liar=False)
    desk.enrol(desk.order[2], room=4)
    while audits(desk):
        answer(desk, audits(desk)[0])
    assert desk.core.liars(desk.task) == {}
    assert desk.core.unneeded_reads(desk.task)["audit"] == 4


def test_a_third_decides_and_the_liar_is_named_and_read_again() -> None:
    desk, version = read_by(ALWAYS, liar=True)
    _, liar, second, third = desk.order
    desk.enrol(second, room=8)
    while audits(desk):
        answer(desk, audits(desk)[0])
    assert not desk.core.liars(desk.task)  # One's word against another's.
    desk.enrol(third, room=8)
    answer(desk, audits(desk)[0])
    assert list(desk.core.liars(desk.task)) == [desk.id(liar)]
    for number in (liar, second, third):
        assert desk.to(number, m.Verdict)[-1].attester == desk.id(liar)
    again = {x.info.first for n in (second, third) for x in desk.grants(n)
             if x.info.kind is LeaseKind.READ}  # fmt: skip
    assert again >= {1, 2, 3}
    assert not desk.leases(liar)
    desk.enrol(liar, version=version, have=range(4))
    assert not desk.leases(liar)


def test_an_auditor_that_lies_is_found_too() -> None:
    desk, _ = read_by(ALWAYS, liar=False)
    _, _, liar, third = desk.order
    desk.enrol(liar, room=8)
    answer(desk, audits(desk)[0], lie=True)
    desk.enrol(third, room=8)
    for _ in range(20):
        honest = [x for x in audits(desk) if x.holder == desk.id(third)]
        if not honest or desk.core.liars(desk.task):
            break
        answer(desk, honest[0])
    assert list(desk.core.liars(desk.task)) == [desk.id(liar)]


def test_audits_stay_within_one_percent() -> None:
    desk = Desk(range(1, 4), config=KeeperConfig(audit_share=1.0))
    one, other = desk.order[1:]
    desk.enrol(one, room=8)
    desk.later(1.0)
    desk.ask(one, 8)
    desk.resolve(one, 256)
    desk.enrol(other, room=8)
    for _ in range(600):
        leases = desk.leases()
        if not leases:
            break
        answer(desk, leases[0])
    assert 0 < desk.core.unneeded_reads(desk.task)["audit"] <= 2


def test_chance_leaves_the_other_half_of_the_budget_to_what_does_not_spread() -> None:
    for seed in range(20):
        audits = Audits(KeeperConfig(), random.Random(seed))
        audits.begin(400, ranged=True)
        for index in range(400):
            made = Attestation.made(key(1), VersionId("5" * 64), PieceIndex(index), bytes(32))
            audits.made(made)
        assert len(audits.pending) <= 2
        assert audits.spend(4) >= 2


def dispute(desk: Desk, version: VersionInfo, by: int, of: int, lie: bool) -> None:
    made = tuple(desk.attest(of, version, i, lie and i > 0) for i in range(4))
    desk.hear(by, m.Dispute(desk.task, 1, version.version, made))


def test_a_failed_digest_leads_to_the_liar() -> None:
    desk, version = read_by(NEVER, liar=True)
    _, liar, victim, third = desk.order
    desk.enrol(victim, version=version, room=4)
    desk.enrol(third, room=4)
    dispute(desk, version, victim, liar, lie=True)
    for _ in range(20):
        if desk.core.liars(desk.task) or not audits(desk):
            break
        answer(desk, audits(desk)[0])
    assert list(desk.core.liars(desk.task)) == [desk.id(liar)]


def test_with_nobody_else_to_ask_the_one_whose_content_failed_is_the_liar() -> None:
    desk, version = read_by(NEVER, liar=True)
    _, liar, victim, _ = desk.order
    desk.enrol(victim, version=version, room=4)
    dispute(desk, version, victim, liar, lie=True)
    for _ in range(20):
        if desk.core.liars(desk.task) or not audits(desk):
            break
        answer(desk, audits(desk)[0])
    assert list(desk.core.liars(desk.task)) == [desk.id(liar)]


def test_when_all_were_honest_the_content_itself_is_wrong() -> None:
    desk, version = read_by(NEVER, liar=False)
    _, reader, victim, _ = desk.order
    desk.enrol(victim, version=version, room=4)
    dispute(desk, version, victim, reader, lie=False)
    while audits(desk):
        answer(desk, audits(desk)[0])
    assert [x.code for x in desk.to(victim, m.Unreadable)] == ["digest-mismatch"]
    assert desk.core.liars(desk.task) == {}


def test_a_forged_dispute_accuses_nobody() -> None:
    desk, version = read_by(NEVER, liar=False)
    _, reader, accuser, _ = desk.order
    desk.enrol(accuser, version=version, room=4)
    made = tuple(
        Attestation(version.version, i, b"\x07" * 32, desk.id(reader), bytes(64)) for i in range(4)
    )
    desk.hear(accuser, m.Dispute(desk.task, 1, version.version, made))
    while audits(desk):
        answer(desk, audits(desk)[0])
    assert desk.core.liars(desk.task) == {}


def test_a_newcomer_hears_the_verdict() -> None:
    test_with_nobody_else_to_ask_the_one_whose_content_failed_is_the_liar()
    desk, version = read_by(NEVER, liar=True)
    _, liar, victim, late = desk.order
    desk.enrol(victim, version=version, room=4)
    dispute(desk, version, victim, liar, lie=True)
    for _ in range(20):
        if desk.core.liars(desk.task):
            break
        answer(desk, audits(desk)[0])
    desk.enrol(late, room=None)
    assert [x.attester for x in desk.to(late, m.Verdict)] == [desk.id(liar)]


def quarrel(liar: bool) -> tuple[Desk, VersionInfo, int]:
    """Four read 200 pieces between them, perhaps one with a lie, and a fifth disputes all."""
    desk = Desk(range(1, 7), config=NEVER)
    one, *others, victim = desk.order[1:]
    desk.enrol(one, room=4)
    desk.later(1.0)
    desk.ask(one, 4)
    version = desk.resolve(one, 200)
    for number in others:
        desk.enrol(number, room=4)
    made: dict[int, int] = {0: one}
    while reads := [x for x in desk.leases() if x.kind is LeaseKind.READ]:
        holder = next(n for n in desk.numbers if desk.id(n) == reads[0].holder)
        desk.later(0.001)
        desk.finish(holder, reads[0], lie=liar and holder == others[0])
        made[reads[0].first] = holder
    desk.enrol(victim, version=version, room=4)
    quoted = tuple(
        desk.attest(n, version, index, lie=liar and n == others[0]) for index, n in made.items()
    )
    for accuser in (victim, others[1]):
        own = tuple(each for each in quoted if each.attester != desk.id(accuser))
        desk.hear(accuser, m.Dispute(desk.task, 1, version.version, own))
    return desk, version, others[0]


def test_a_sample_of_each_attester_is_enough_to_find_who_always_lies() -> None:
    desk, _, liar = quarrel(liar=True)
    for _ in range(200):
        if desk.core.liars(desk.task):
            break
        audit = audits(desk)[0]
        answer(desk, audit, lie=audit.holder == desk.id(liar))
    assert list(desk.core.liars(desk.task)) == [desk.id(liar)]
    assert desk.core.unneeded_reads(desk.task)["dispute"] <= 2 * 5 + 2
    again = {x.first for x in desk.leases() if x.kind is LeaseKind.READ}
    assert again


def test_where_all_samples_are_right_all_is_read_again_before_the_content_is_called_wrong() -> None:
    desk, _, _ = quarrel(liar=False)
    for _ in range(400):
        if not audits(desk):
            break
        assert not [x for n in desk.numbers for x in desk.to(n, m.Unreadable)]
        answer(desk, audits(desk)[0])
    assert desk.core.unneeded_reads(desk.task)["dispute"] == 200, "and each of them once"
    assert [x.code for x in desk.to(desk.order[-1], m.Unreadable)] == ["digest-mismatch"]


def test_a_dispute_that_crossed_the_verdict_is_explained_by_it() -> None:
    """Its sender had the liar's pieces when it spoke: what the others read is not in question."""
    desk, version, liar = quarrel(liar=True)
    while not desk.core.liars(desk.task):
        audit = audits(desk)[0]
        answer(desk, audit, lie=audit.holder == desk.id(liar))
    late = desk.order[-2]
    honest = next(n for n in desk.order[1:] if n not in (liar, late))
    told = len(desk.to(late, m.Verdict))
    quoted = (desk.attest(liar, version, 3, lie=True), desk.attest(honest, version, 5))
    desk.hear(late, m.Dispute(desk.task, 1, version.version, quoted))
    while audits(desk):
        answer(desk, audits(desk)[0])
    assert not [x for n in desk.numbers for x in desk.to(n, m.Unreadable)]
    assert len(desk.to(late, m.Verdict)) == told + 1
