"""Who is in the cluster: alive, suspect or gone, and the news about it that rides on other datagrams.

Laws:
- a member is a contact of the table, gone since it was one, or in passing: heard, and forgotten `PASSING_S` after it
  was heard last; only contacts are watched, counted as present, and news;
- hearing a node itself beats whatever others say of it, except that its own goodbye is final for that boot id; that it
  has left or is gone, from others, makes it a suspect, at which this node looks itself;
- news names a boot id, so that the death of a node's earlier life says nothing about its present one;
- a node that is suspected wrongly raises its incarnation, and that overrules the suspicion everywhere; what others say
  raises it by so little at a time that nobody can drive it to its end;
- nothing here waits: `tick` says who is gone, `changes` hands out what others must react to.

Follows SWIM (Das, Gupta, Motivala, 2002), sections 4.1 to 4.3: suspicion, piggy-backed news, shuffled round robin.
"""

import heapq
import math
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from random import Random
from typing import Literal

import msgspec

from p2pmirror.routing.dht.messages import ALIVE, GONE, LEFT, NEWS_MAX, SUSPECT, News, NodeInfo, unpack_address
from p2pmirror.routing.protocol import MemberState
from p2pmirror.wire.address import Address
from p2pmirror.wire.identity import NodeId

FRESH_S = 8.0  # a provider heard within this is handed out without a ping (DESIGN.md: Liveness)
SUSPICION_S = 3.0  # a suspect has so long to say that it is alive; news needs about a second to get around
PASSING_S = 2 * FRESH_S  # a node that is no contact is remembered so long after it was heard: it may be handed out
GONE_KEPT_S = 600.0  # gone members are remembered, and knocked at, so that a split cluster finds together again
GONE_MAX = 1024  # gone members that are remembered
MEMBERS_MAX = 4096  # members, some 600 bytes each: contacts, gone ones, and 2,000 that come by
PAST_BOOTS_MAX = 4  # boot ids of a node's earlier lives: their late datagrams are ignored
NEWS_HELD_MAX = 256  # news waiting to be passed on
NEWS_SENDS_FACTOR = 4  # each is passed on 4 ln(N + 1) times: SWIM's lambda, so that all hear it with high probability
NEWCOMER_SENDS_FACTOR = 1  # a newcomer also introduces itself
INCARNATION_LEAP_MAX = (
    1000  # by which others may raise one: a node answers each suspicion by one more, and some are missed
)
INDIRECT_PROBES = 3  # members asked to ping one that does not answer: SWIM's k

_WORDS: dict[int, MemberState] = {ALIVE: "alive", SUSPECT: "suspect", GONE: "gone", LEFT: "gone"}


@dataclass(slots=True)
class Known:
    """A member."""

    info: NodeInfo  # with `router` filled in
    state: int
    last_heard: float  # -inf: never
    doubted: bool = False  # a dial or a ping failed since it was heard
    lost: bool = False  # whether its address was silent when it was said to be at another one
    passing: bool = True  # whether it is no contact of the table
    deadline: float = math.inf  # suspect: gone then; gone: forgotten then
    past_boots: tuple[bytes, ...] = ()

    @property
    def word(self) -> MemberState:
        """The state in a word."""
        return _WORDS[self.state]

    @property
    def router(self) -> Address:
        """Where its router is."""
        return unpack_address(self.info.router)

    @property
    def is_present(self) -> bool:
        """Whether it is a contact."""
        return self.state <= SUSPECT and not self.passing

    @property
    def next_look(self) -> float:
        """When something about it ends by itself."""
        return self.last_heard + PASSING_S if self.passing and self.state == ALIVE else self.deadline


@dataclass(frozen=True, slots=True)
class Change:
    """Somebody joined, came back after it was taken for gone, or is gone; `accused`: this node was taken for gone."""

    kind: Literal["joined", "returned", "gone", "accused"]
    node_id: NodeId


class Membership:
    """All members but this node."""

    def __init__(self, own: NodeInfo, random: Random) -> None:
        """Know nobody."""
        self.own = own
        self._random = random
        self._members: dict[NodeId, Known] = {}
        self._gone: dict[NodeId, None] = {}  # in the order in which they went
        self._looks: list[tuple[float, NodeId]] = []  # a heap: when to look at whom
        self._round: list[NodeId] = []
        self._news: OrderedDict[NodeId, tuple[News, int]] = OrderedDict()  # and how often; the least told first
        self._changes: list[Change] = []
        self._doubtful: list[Address] = []  # of members that others suspect

    def __len__(self) -> int:
        return len(self._members)

    def get(self, node_id: NodeId) -> Known | None:
        """Return a member, gone ones included."""
        return self._members.get(node_id)

    def all(self) -> list[Known]:
        """Return every contact and whoever is gone."""
        return [known for known in self._members.values() if known.state > SUSPECT or not known.passing]

    def present(self) -> list[Known]:
        """Return the contacts, alive or suspect."""
        return [known for known in self._members.values() if known.is_present]

    def is_fresh(self, node_id: NodeId, now: float) -> bool:
        """Whether it was heard so lately that it may be handed out unasked."""
        known = self._members.get(node_id)
        return known is not None and known.state == ALIVE and not known.doubted and now < known.last_heard + FRESH_S

    def accepts(self, node_id: NodeId, boot_id: bytes, router: Address) -> bool:
        """Whether this life of a node, at this address, is one that may speak for it."""
        known = self._members.get(node_id)
        if known is None:
            return True
        if boot_id in known.past_boots or (known.info.boot_id == boot_id and known.state == LEFT):
            return False
        return known.router == router or self.may_move(node_id)

    def may_move(self, node_id: NodeId) -> bool:
        """Whether a node may be believed at another address: unknown, said goodbye, or was looked for where it was."""
        known = self._members.get(node_id)
        return known is None or known.state == LEFT or known.lost

    def met(self, info: NodeInfo, now: float) -> bool:
        """Take in what a node that was heard says of itself (`router` filled in); return whether it was believed."""
        node_id = NodeId(info.node_id)
        known = self._members.get(node_id)
        if node_id == self.own.node_id:
            return False
        if known is None:
            if len(self._members) >= MEMBERS_MAX:
                return False
            self._members[node_id] = Known(info, ALIVE, now)
            heapq.heappush(self._looks, (now + PASSING_S, node_id))
            return True
        if info.boot_id in known.past_boots or (info.boot_id == known.info.boot_id and known.state == LEFT):
            return False
        if info.boot_id != known.info.boot_id:
            self._reborn(known, info)
        elif info.incarnation >= known.info.incarnation:
            known.info = info
        self._revive(known, now)
        return True

    def heard(self, node_id: NodeId, router: Address, now: float) -> bool:
        """Note that a member was heard from its own address; return whether it is a member that speaks from there."""
        known = self._members.get(node_id)
        if known is None or known.state == LEFT or known.router != router:
            return False
        self._revive(known, now)
        return True

    def admitted(self, node_id: NodeId) -> None:
        """Note that a member that is alive has become a contact."""
        known = self._members[node_id]
        known.passing = False
        self._round.insert(self._random.randrange(len(self._round) + 1), node_id)
        self._changes.append(Change("joined", node_id))
        self._tell_alive(known.info)

    def displaced(self, node_id: NodeId) -> None:
        """Note that a contact has given way to another: it is a member in passing now, which is no news."""
        known = self._members[node_id]
        known.passing, known.state, known.deadline = True, ALIVE, math.inf
        heapq.heappush(self._looks, (known.next_look, node_id))

    def doubt(self, node_id: NodeId) -> None:
        """Hand it out only once it has been heard again."""
        known = self._members.get(node_id)
        if known is not None:
            known.doubted = True

    def suspect(self, node_id: NodeId, now: float) -> None:
        """Note that neither it nor anybody who asked for us had an answer."""
        known = self._members.get(node_id)
        if known is not None and known.state == ALIVE and not known.passing:
            self._suspect(known, now)

    def lost(self, node_id: NodeId, now: float) -> None:
        """Note that it is not where it was: its address is silent, or somebody else's."""
        known = self._members.get(node_id)
        if known is None:
            return
        known.lost = True
        if known.state <= SUSPECT:
            self._end(known, GONE, now)

    def left(self, node_id: NodeId, boot_id: bytes, now: float) -> None:
        """Note its goodbye."""
        known = self._members.get(node_id)
        if known is not None and known.info.boot_id == boot_id and known.state != LEFT:
            self._end(known, LEFT, now)

    def tick(self, now: float) -> None:
        """Let suspicions and memories end."""
        while self._looks and self._looks[0][0] <= now:
            _, node_id = heapq.heappop(self._looks)
            known = self._members.get(node_id)
            if known is None or known.next_look == math.inf:
                continue
            if now < known.next_look:
                heapq.heappush(self._looks, (known.next_look, node_id))
            elif known.state == SUSPECT:
                self._end(known, GONE, now)
            else:
                self._forget(node_id)

    def next_ping(self) -> Known | None:
        """Return whom to ping now: every contact once a round, in an order shuffled anew."""
        for fresh_round in (False, True):
            if fresh_round:
                self._round = [NodeId(known.info.node_id) for known in self.present()]
                self._random.shuffle(self._round)
            while self._round:
                known = self._members.get(self._round.pop())
                if known is not None and known.is_present:
                    return known
        return None

    def next_knock(self) -> Known | None:
        """Return a gone member, at random, that may be back."""
        gone = [node_id for node_id in self._gone if self._members[node_id].state == GONE]
        return self._members[self._random.choice(gone)] if gone else None

    def helpers(self, but: NodeId) -> list[Known]:
        """Return a few members who may ping for us."""
        alive = [each for each in self.present() if each.state == ALIVE and each.info.node_id != but]
        return self._random.sample(alive, min(INDIRECT_PROBES, len(alive)))

    @property
    def has_changed(self) -> bool:
        """Whether `changes` has something to hand out."""
        return bool(self._changes)

    def changes(self) -> list[Change]:
        """Hand out, once, what has changed."""
        changes, self._changes = self._changes, []
        return changes

    def doubtful(self) -> list[Address]:
        """Hand out, once, the addresses of members that others suspect: to be pinged before that is believed."""
        doubtful, self._doubtful = self._doubtful, []
        return doubtful

    def news(self) -> tuple[News, ...]:
        """Return what is to ride on the datagram that is about to be sent, what was told least first."""
        if not self._news:
            return ()
        told = [self._news.popitem(last=False) for _ in range(min(NEWS_MAX, len(self._news)))]
        periods = math.log(len(self._members) + 2)
        for node_id, (news, count) in told:
            factor = NEWCOMER_SENDS_FACTOR if news.state == ALIVE and news.incarnation == 0 else NEWS_SENDS_FACTOR
            if count + 1 < factor * periods:
                self._news[node_id] = (news, count + 1)
        return tuple(news for _, (news, _) in told)

    def apply(self, news: Iterable[News], now: float) -> list[NodeInfo]:
        """Take in news from others; return the introductions of nodes that should be pinged before they are members."""
        strangers = []
        for each in news:
            if each.about == self.own.node_id:
                self._answer_accusation(each)
            elif (stranger := self._apply_one(each, now)) is not None:
                strangers.append(stranger)
        return strangers

    def accusation(self, node_id: NodeId) -> tuple[News, ...]:
        """Return the news that this member was gone: told to itself when it is heard again, so that it starts anew."""
        known = self._members.get(node_id)
        if known is None:
            return ()
        return (News(node_id, known.info.boot_id, known.info.incarnation, GONE),)

    def _apply_one(self, news: News, now: float) -> NodeInfo | None:
        known = self._members.get(NodeId(news.about))
        if known is None or news.boot_id != known.info.boot_id:
            new = known is None or news.boot_id not in known.past_boots
            return news.info if new and news.state == ALIVE else None
        if news.incarnation > known.info.incarnation + INCARNATION_LEAP_MAX:
            return None
        if news.state == ALIVE and known.state == SUSPECT and news.incarnation > known.info.incarnation:
            known.info = msgspec.structs.replace(known.info, incarnation=news.incarnation)
            known.state, known.deadline = ALIVE, math.inf
            self._tell(news)
        elif news.state == ALIVE and known.state == GONE and news.incarnation > known.info.incarnation:
            return news.info  # ping it before it counts
        elif news.incarnation >= known.info.incarnation and known.state == ALIVE and news.state >= SUSPECT:
            known.doubted = True
            self._doubtful.append(known.router)
            if not known.passing:
                self._suspect(known, now)
        return None

    def _answer_accusation(self, news: News) -> None:
        if news.boot_id != self.own.boot_id or news.state == ALIVE:
            return
        if self.own.incarnation + INCARNATION_LEAP_MAX < news.incarnation:
            return
        if news.incarnation >= self.own.incarnation:
            self.own = msgspec.structs.replace(self.own, incarnation=news.incarnation + 1)
            if self.own.router:
                self._tell_alive(self.own)
        if news.state >= GONE:
            self._changes.append(Change("accused", NodeId(self.own.node_id)))

    def _reborn(self, known: Known, info: NodeInfo) -> None:
        """Take in that a node began anew: for everybody else it is gone and has joined."""
        if known.state <= SUSPECT:
            self._changes.append(Change("gone", NodeId(info.node_id)))
        known.past_boots = (*known.past_boots, known.info.boot_id)[-PAST_BOOTS_MAX:]
        known.info, known.state, known.passing = info, GONE, True  # and revived by whoever calls this

    def _revive(self, known: Known, now: float) -> None:
        known.last_heard, known.doubted, known.lost = now, False, False
        if known.state == ALIVE:
            return
        known.deadline = math.inf
        if known.state == SUSPECT:
            known.state = ALIVE
            self._tell_alive(known.info)
            return
        node_id = NodeId(known.info.node_id)
        known.state = ALIVE
        self._gone.pop(node_id, None)
        self._changes.append(Change("returned", node_id))
        heapq.heappush(self._looks, (known.next_look, node_id))

    def _suspect(self, known: Known, now: float) -> None:
        known.state, known.deadline = SUSPECT, now + SUSPICION_S
        heapq.heappush(self._looks, (known.deadline, NodeId(known.info.node_id)))
        self._tell(News(known.info.node_id, known.info.boot_id, known.info.incarnation, SUSPECT))

    def _end(self, known: Known, state: int, now: float) -> None:
        node_id = NodeId(known.info.node_id)
        if known.state <= SUSPECT:
            self._changes.append(Change("gone", node_id))
            if not known.passing:
                self._tell(News(known.info.node_id, known.info.boot_id, known.info.incarnation, state))
        else:
            self._tell(News(known.info.node_id, known.info.boot_id, known.info.incarnation, state))
        known.state, known.deadline, known.passing = state, now + GONE_KEPT_S, True
        heapq.heappush(self._looks, (known.deadline, node_id))
        self._gone.pop(node_id, None)
        self._gone[node_id] = None
        if len(self._gone) > GONE_MAX:
            self._forget(next(iter(self._gone)))

    def _forget(self, node_id: NodeId) -> None:
        self._gone.pop(node_id, None)
        del self._members[node_id]

    def _tell_alive(self, info: NodeInfo) -> None:
        self._tell(News(info.node_id, info.boot_id, info.incarnation, ALIVE, info))

    def _tell(self, news: News) -> None:
        self._news[NodeId(news.about)] = (news, 0)
        self._news.move_to_end(NodeId(news.about), last=False)
        while len(self._news) > NEWS_HELD_MAX:
            self._news.popitem()
