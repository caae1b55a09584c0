"""One message of every kind, with every field filled."""

from __future__ import annotations

from peerd.ids import LeaseId, PeerId, PieceIndex, TaskId
from peerd.link.messages import (
    Access,
    BringAsk,
    Cancel,
    CellHolds,
    Complaint,
    Delegate,
    Depart,
    Dispute,
    Doubted,
    Ended,
    Enlist,
    Enrol,
    Enrolled,
    Have,
    HedgeAsk,
    Heeded,
    Hello,
    Holdings,
    Join,
    KeeperState,
    LeaderIs,
    LeaderLease,
    LeaseAsk,
    LeaseGrant,
    LeaseInfo,
    LeaseKind,
    LeaseReport,
    LeaseRevoked,
    Mates,
    MatesAsk,
    Message,
    Outcome,
    Ping,
    Pong,
    Probe,
    Progress,
    Redirect,
    Refused,
    Reject,
    Request,
    Resolved,
    RosterPeer,
    RosterUpdate,
    Sample,
    Subscribe,
    TermProof,
    Unreadable,
    Verdict,
    Withdraw,
)
from peerd.link.own_messages import (
    CircuitClose,
    CircuitCredit,
    CircuitData,
    CircuitOffer,
    CircuitOpen,
    CircuitOpened,
)
from peerd.link.scheduler_messages import Advice, Advised, Report, Reports, SwarmReport, ZoneReport
from peerd.manifest import Attestation, VersionInfo
from peerd.task import TaskSpec
from tests.link.helper import KEYS, VERSION

TASK = TaskId("cd" * 32)
PEER: PeerId = KEYS[0].peer_id
INFO = VersionInfo(
    TASK, VERSION, 5_000_000, 262_144, '"etag"', True, "sha256:" + "0" * 64, PEER, bytes(64)
).signed(KEYS[0])
MADE = Attestation.made(KEYS[0], VERSION, PieceIndex(3), bytes(32))
PROOF = TermProof(PEER, 3, bytes(64))
LEASE = LeaseInfo(LeaseId(9), LeaseKind.READ, PEER, 4, 2, 30.0)
MEMBER = RosterPeer(PEER, ("10.0.0.1:7000",), "eu/fra", 20, True, False)
SPEC = TaskSpec("https://example.org/file", None, "tag", "app", (("accept", "*/*"),))

SAMPLES: tuple[Message, ...] = (
    Hello(1, "blue", bytes(16), "peerd/0.1", ("10.0.0.1:7000",)),
    Refused("admission-refused", "this cluster does not know you"),
    Ping(7),
    Pong(7),
    Enrol(
        TASK,
        SPEC,
        (PEER,),
        (),
        3,
        True,
        Access.PROVEN,
        "eu/fra",
        False,
        INFO,
        bytes(3),
        (LEASE,),
        "#01",
        TASK,
        True,
        PEER,
    ),
    Enrolled(TASK, 3, INFO, 1.5, (MEMBER,)),
    Redirect(TASK, PEER, ("10.0.0.1:7000",)),
    LeaseAsk(TASK, 3, 2),
    LeaseGrant(TASK, 3, LEASE, INFO),
    LeaseReport(TASK, 3, 9, Outcome.FAILED, (MADE,), "origin-cut", "it closed the connection"),
    Resolved(TASK, 3, 9, INFO, False),
    Ended(TASK, 3, INFO),
    LeaseRevoked(TASK, 3, 9),
    Progress(TASK, VERSION, bytes(3)),
    RosterUpdate(TASK, 3, INFO, (MEMBER,), (PEER,)),
    Verdict(TASK, 3, VERSION, PEER, "its digest is wrong"),
    Unreadable(TASK, 3, "origin-not-found", "404"),
    Dispute(TASK, 3, VERSION, (MADE,)),
    BringAsk(TASK, 3, 4, bytes(3)),
    HedgeAsk(TASK, 3, VERSION, (PieceIndex(1), PieceIndex(2)), (3.5, 2.25), 7),
    Doubted(TASK, 3, VERSION, "it does not fit on the disk"),
    Complaint(TASK, 3, PEER, "it stalls"),
    Withdraw(TASK),
    Holdings((INFO,), "eu/fra", True),
    Enlist(TASK, SPEC),
    Probe(TASK),
    KeeperState(TASK, 3, True, False, INFO, 1.5, (LEASE,), (PEER,), (PEER,), None, b"\x05"),
    Delegate(TASK, 3),
    Sample(TASK, (MEMBER,), True),
    CellHolds(TASK, VERSION, b"\x05"),
    Join(INFO, bytes(3), "eu/fra", True),
    Have(VERSION, (1, 2, 3)),
    Request(VERSION, (1, 2, 3), 700),
    Cancel(VERSION, (1,)),
    Reject(VERSION, (1,)),
    Depart(VERSION, True),
    MatesAsk(VERSION),
    Mates(VERSION, (MEMBER,)),
    CircuitOpen(2, PEER),
    CircuitOffer(3, PEER),
    CircuitOpened(2),
    CircuitData(2, b"sealed"),
    CircuitCredit(2, 1 << 18),
    CircuitClose(2, "it has no link to that peer"),
    Advice(3, 10.0, (Advised(PEER, TASK, (PEER,)),)),
    Subscribe(PROOF, True),
    LeaderLease(PROOF, 7),
    LeaderIs(PROOF, True),
    Heeded(3),
    Reports(
        (
            Report(
                PEER,
                50,
                1_000_000,
                3,
                (SwarmReport(TASK, 20, 4, True, 500_000),),
                (TASK,),
                (ZoneReport("eu/fra", 750_000, 80),),
            ),
        )
    ),
)
