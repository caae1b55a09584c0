"""What is done to a group in mid-download: one function for each way in which things go wrong.

Always: each runs beside the download and ends by itself; what it finds out it adds to the lab's
findings; where it came too late to disturb anything it says so (Spoiled), and the run is no proof.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from pathlib import Path
from typing import Any, Final

import trio

from tools.chaos import janitor
from tools.chaos.lab import Lab
from tools.chaos.peer import Got, Peer, Spoiled
from tools.chaos.verdict import Finding

EVERY_S: Final = 2.0
STOPPED_S: Final = 20.0
LED_AGAIN_S: Final = 20.0
ELECTED_S: Final = 4.0
"""A new leader leads within so long (docs/acceptance.md), and all follow it."""
SIDE_LED_S: Final = 6.0
"""A lease lives three seconds; links to the other side fall silent meanwhile (simulated: 5.25)."""
FAULTY_S: Final = 3.0
"""How long an origin goes on failing."""
OVERLAY_WITHIN_S: Final = 5.0
KNOWN_WITHIN_S: Final = 10.0
SPLIT_AT: Final = 0.15
HEALED_AT: Final = 0.75
"""Far apart: at 64 MiB and 40 Mbit/s it is longer than a link may be silent, so links end."""
KEEPER_DIES_AT: Final = (0.15, 0.4, 0.65)


async def nothing(lab: Lab) -> None:
    """The reference."""


# --- peers that end


async def churn(lab: Lab) -> None:
    """Half of them may die, so that never more are down, and the other half is judged."""
    victims = lab.rng.sample(lab.peers, len(lab.peers) // 2)
    lab.hurt.update(peer.name for peer in victims)
    killed = 0
    async with trio.open_nursery() as returning:
        while await lab.pause(EVERY_S):
            standing = [peer for peer in victims if peer.up.is_set()]
            if standing:
                victim = lab.rng.choice(standing)
                await lab.kill(victim)
                killed += 1
                returning.start_soon(_back, lab, victim)
    lab.findings.append(Finding("peers killed", str(killed), "≥ 1", killed >= 1))


async def keeper(lab: Lab) -> None:
    killed = []
    async with trio.open_nursery() as returning:
        for share in KEEPER_DIES_AT:
            await lab.progress(share)
            victim = await _keeper(lab)
            await lab.kill(victim)
            killed.append(victim.name)
            returning.start_soon(_back, lab, victim)
    lab.findings.append(Finding("keepers killed", ", ".join(killed), "3", len(killed) == 3))


async def seeds(lab: Lab) -> None:
    await lab.progress(0.5)
    for peer in lab.seeds:
        await lab.kill(peer)


async def leader(lab: Lab) -> None:
    await lab.progress(0.5)
    victim = await _leader(lab)
    await lab.kill(victim)
    took_s = await lab.led(LED_AGAIN_S, not_by=victim)
    lab.findings.append(
        Finding("another leads", f"{took_s:.1f} s", f"≤ {ELECTED_S:g} s", took_s <= ELECTED_S)
    )
    await lab.until(lab.over)
    await lab.restart(victim)


async def leader_apart(lab: Lab) -> None:
    """Each side elects its own; of the two one stays."""
    await lab.progress(SPLIT_AT)
    sides = _sides(lab, 2)
    lab.partition(*sides)
    took_s: list[float] = []

    async def wait(side: list[Peer]) -> None:
        took_s.append(await lab.led(LED_AGAIN_S, side))

    async with trio.open_nursery() as electing:
        for side in sides:
            electing.start_soon(wait, side)
    words, limit = ", ".join(f"{each:.1f} s" for each in took_s), f"≤ {SIDE_LED_S:g} s"
    lab.findings.append(Finding("each side led", words, limit, max(took_s) <= SIDE_LED_S))
    await lab.progress(HEALED_AT)
    lab.heal()
    healed_s = await lab.led(LED_AGAIN_S)
    limit = f"≤ {OVERLAY_WITHIN_S:g} s"
    ok = healed_s <= OVERLAY_WITHIN_S
    lab.findings.append(Finding("one leader again", f"{healed_s:.1f} s", limit, ok))


async def leader_stopped(lab: Lab) -> None:
    await lab.progress(0.3)
    await lab.stopped(await _leader(lab), STOPPED_S)


async def advised(lab: Lab) -> None:
    """Its leader is what it is; it must have been heard, or this proves nothing."""
    await lab.progress(0.5)
    led = await _leader(lab)
    picture = (await led.scheduler())["picture"]
    await lab.until(lab.over)
    made = picture["decisions"] if picture else 0
    lab.findings.append(Finding("advice given", str(made), "≥ 1", made >= 1))


async def _leader(lab: Lab) -> Peer:
    found = await lab.leader()
    if found is None:
        raise Spoiled("no leader is followed by all")
    return found


async def stopped(lab: Lab) -> None:
    await lab.progress(0.3)
    await lab.stopped(lab.rng.choice(lab.peers), STOPPED_S)


async def _back(lab: Lab, peer: Peer) -> None:
    await trio.sleep(EVERY_S)
    await lab.restart(peer)


async def _keeper(lab: Lab) -> Peer:
    """Whom most of the untouched name; where they name a dead one, who follows by the rule."""
    told = Counter([(await peer.task(lab.task())).get("keeper") for peer in lab.untouched()])
    named = {peer.peer_id: peer for peer in lab.alive()}
    for peer_id, _ in told.most_common():
        if peer_id in named:
            return named[peer_id]
    return lab.keeper()


# --- the network


async def two_sides(lab: Lab) -> None:
    await _partition(lab, 2)


async def three_sides(lab: Lab) -> None:
    await _partition(lab, 3)


async def _partition(lab: Lab, count: int) -> None:
    await lab.progress(SPLIT_AT)
    sides = _sides(lab, count)
    lab.partition(*sides)
    async with trio.open_nursery() as learning:
        # Something that only this side has, to see later when the others know of it.
        for number, side in enumerate(sides):
            learning.start_soon(_get_small, lab, side[0], number)
    await lab.progress(HEALED_AT)
    fewest = min([(await peer.status())["peers"] for peer in lab.peers])
    noticed = f"{fewest} of {len(lab.peers) - 1} others reachable"
    lab.findings.append(Finding("before the heal", noticed, "(told only)", True))
    wasted = [await _wasted(lab, peer) for peer in lab.peers]
    lab.heal()
    healed_at = trio.current_time()
    took_s = await lab.acquainted(OVERLAY_WITHIN_S)
    lab.findings.append(
        Finding("overlay whole", f"{took_s:.1f} s", f"≤ {OVERLAY_WITHIN_S:g} s", took_s < 1e9)
    )
    await _all_know(lab, sides, healed_at)
    await lab.until(lab.over)
    again = sum([await _wasted(lab, peer) for peer in lab.peers]) - sum(wasted)
    lab.findings.append(Finding("twice after the heal", f"{again} bytes", "0", again == 0))


def _sides(lab: Lab, count: int) -> list[list[Peer]]:
    """By chance, but those that may lead are dealt evenly."""
    order = lab.rng.sample(lab.peers, len(lab.peers))
    order.sort(key=lambda peer: not peer.settings["scheduler"])
    return [order[number::count] for number in range(count)]


async def _all_know(lab: Lab, sides: list[list[Peer]], healed_at: float) -> None:
    """What one side alone held, each of the others gets without asking the origin for it."""
    await trio.sleep_until(healed_at + KNOWN_WITHIN_S)
    before = await lab.origin.sent()
    got: list[Got] = []

    async def learn(peer: Peer, number: int) -> None:
        got.append(await _get_small(lab, peer, number))

    with trio.move_on_after(KNOWN_WITHIN_S):
        async with trio.open_nursery() as learning:
            for number, side in enumerate(sides):
                for peer in lab.peers:
                    if peer not in side:
                        learning.start_soon(learn, peer, number)
    wanted = len(lab.peers) * (len(sides) - 1)
    after = await lab.origin.sent()
    read = (after.body_bytes - after.content_bytes) - (before.body_bytes - before.content_bytes)
    words = f"{len(got)} of {wanted} got it, {read} bytes from the origin"
    limit = f"all after {KNOWN_WITHIN_S:g} s, 0"
    ok = len(got) == wanted and read == 0
    lab.findings.append(Finding("each side's known to all", words, limit, ok))


async def _get_small(lab: Lab, peer: Peer, number: int) -> Got:
    wish = {"url": lab.origin.small(number), "timeout_s": lab.limit_s}
    return await peer.get(wish, lambda event: None)


async def _wasted(lab: Lab, peer: Peer) -> int:
    return int((await peer.task(lab.task())).get("wasted_bytes", 0))


async def origin_to_one(lab: Lab) -> None:
    await lab.progress(0.25)
    one = lab.rng.choice(lab.peers)
    others = [peer for peer in lab.peers if peer is not one]
    for peer in others:  # What is on its way to those that are cut off never arrives.
        await lab.forgive_in_flight(peer)
    lab.cut_origin_off(others)


async def slow(lab: Lab) -> None:
    await lab.progress(0.2)
    await _slowed(lab, lab.rng.choice(lab.peers))


async def slow_keeper(lab: Lab) -> None:
    await lab.progress(0.2)
    await _slowed(lab, await _keeper(lab))


async def _slowed(lab: Lab, peer: Peer) -> None:
    lab.hurt.add(peer.name)
    lab.rate(peer, lab.shape.rate_bit_s // 100)
    await lab.forgive(peer)
    await lab.until(lab.over)
    lab.rate(peer, lab.shape.rate_bit_s)


# --- peers that lie


async def lies(lab: Lab) -> None:
    """The liar is one from the start; what it alone has read is to be read again."""
    honest = [peer for peer in lab.peers if peer not in lab.liars]
    await lab.until(lambda: all(lab.asked[peer.name].over for peer in honest))
    names = {peer.peer_id: peer for peer in lab.liars}
    blamed: set[str] = set()
    for peer in honest:
        blamed |= {row["peer_id"] for row in (await peer.task(lab.task())).get("blocked", [])}
    innocent = sorted(blamed - set(names))
    lab.findings.append(
        Finding("wrong bytes served on", f"{len(innocent)} honest blamed", "0", not innocent)
    )
    caught = len(blamed & set(names))
    lab.findings.append(Finding("liars named", str(caught), str(len(names)), caught == len(names)))


# --- a disk, a clock


async def full_disk(lab: Lab) -> None:
    """The last one's disk holds half; once the others are done it gets a larger one."""
    peer = lab.peers[-1]
    lab.hurt.add(peer.name)
    asked = lab.asked[peer.name]
    await lab.until(lambda: bool(asked.errors) or asked.over)
    peer.up = trio.Event()  # Nobody asks again before there is room.
    words = asked.errors[0] if asked.errors else "nothing"
    lab.findings.append(
        Finding("the full one says", words[:60], "no-space", words.startswith("no-space"))
    )
    await lab.until(lab.over)
    janitor.mount(peer.data_dir, 2 * lab.shape.size_bytes)
    peer.up.set()


async def disk_fills(lab: Lab) -> None:
    """Somebody else fills it; what a get says then, if it says anything, is that there is no room.

    It may also get through: room for the content is taken before it is read.
    """
    peer = lab.peers[-1]
    lab.hurt.add(peer.name)
    asked = lab.asked[peer.name]
    await lab.progress(0.3)
    ballast = peer.data_dir / "ballast"
    _fill(ballast)
    await lab.until(lambda: bool(asked.errors) or asked.over or lab.over())
    if asked.errors:
        peer.up = trio.Event()  # Nobody asks again before there is room.
    await lab.until(lab.over)
    ballast.unlink()
    goes_on = peer.runs()
    lab.findings.append(
        Finding("its daemon", "goes on" if goes_on else "ended", "goes on", goes_on)
    )
    if not goes_on:
        await lab.restart(peer)
    peer.up.set()
    words = asked.errors[0] if asked.errors else "nothing"
    ok = words == "nothing" or words.startswith("no-space")
    lab.findings.append(Finding("the full one says", words[:60], "nothing, or no-space", ok))


def _fill(ballast: Path) -> None:
    block = bytes(1 << 16)
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(block):
            pass  # Until there is no space left.


async def clock(lab: Lab) -> None:
    """Its wall clock goes six hours ahead, then six behind; whoever waits by it waits wrong."""
    file = lab.peers[-1].home / "clock"
    ahead_s = []
    for share, offset in ((0.2, "+6h"), (0.5, "-6h")):
        await lab.progress(share)
        file.write_text(offset)
        ahead_s.append(offset)
    lab.findings.append(Finding("clock", ", ".join(ahead_s), "2 jumps", len(ahead_s) == 2))


# --- the origin


async def _faulty(lab: Lab, **faults: Any) -> None:
    await lab.progress(0.3)
    await lab.origin.faults(**faults)
    await trio.sleep(FAULTY_S)
    await lab.origin.faults()


async def origin_cuts(lab: Lab) -> None:
    await _faulty(lab, cut_after=100_000)


async def origin_stalls(lab: Lab) -> None:
    await _faulty(lab, stall_after=100_000)


async def origin_busy(lab: Lab) -> None:
    await _faulty(lab, status_first=(1 << 30, 429), retry_after="1")


async def origin_errors(lab: Lab) -> None:
    await _faulty(lab, status_first=(1 << 30, 500))


async def origin_changes(lab: Lab) -> None:
    await lab.progress(0.5)
    await lab.origin.change()
    await lab.until(lab.over)
    lab.lost_bytes["the old version"] = (await lab.origin.sent()).old_bytes
    found = {asked.got.sha256 for asked in lab.asked.values() if asked.got is not None}
    names = {lab.origin.sha256: "old", lab.origin.sha256_changed: "new"}
    words = ", ".join(sorted(names.get(digest, "mixed") for digest in found))
    lab.findings.append(Finding("versions delivered", words, "whole ones", "mixed" not in words))
