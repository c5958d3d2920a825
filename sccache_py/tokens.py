"""Who may run: N job tokens, who waits for one, who could use more, who lends to whom.

The policy of the jobserver, as an object that is told what happened and says what to do.  It opens no pipe and looks at no clock
(`now` is in seconds, from any start); server/jobserver.py does what it says, and tests/unit/test_tokens_simulation.py drives it through
schedules that no machine would show us.

A *holder* is a compile, or a build that runs under `sccache-py --jobserver`.  It waits, is admitted with one token of its own, and may have
a *channel* by which it can be offered more.  Of a channel three numbers are known, and everything follows from them:

    out  = offered - back        tokens that the pool gave away and has not seen again
    held = out - unread          of these, the ones that are not still lying there, free to be revoked

- A new compile comes before a running compile's extra thread (cargo's own rule: spawn first, then fill).  While a compile waits for
  nothing but a token, compilers are offered nothing, and what they have not read is revoked.

- Builds take turns.  One that has nothing running goes before those that have, but not twice in a row: an editor's `cargo check` gets
  its token at the next compile's end, and no stream of newcomers shuts the big build out.

- A build under the wrapper starts its compilers itself, so an offer to it *is* a new job: it takes part in the turns.  Whether it has one
  can only be found out by offering: left unread for 10 ms, the offer goes on to the next, and the build is asked again in 250 ms.

- With nobody waiting: one offer for each, in turn, and what is left for builds.  Where tokens are scarce an unread offer
  moves on after 10 ms.  A compiler holds at most ⌈2N/compilers⌉ extra, and rests for 50 ms after three cycles of take and
  return within 1 ms each, which cost more than they bring.

- Who already runs under one of our tokens and waits for us while it holds it (cargo under the wrapper, a compiler script that calls us) is
  lent that token.  To charge it twice could leave everybody waiting for everybody (sccache #232).  A lender that ends before its
  borrower leaves it the token.

- A check (metadata alone, as `cargo check` wants it) of a build that has nothing running, while others hold all tokens, runs on the
  house, one at a time: whoever waits for it sits before an editor, and a big crate's compile may take seconds.

- Builds never hold all tokens, since they hold their first as long as they live: the one that would take the last runs its first job on
  the house.

- A compile that would push the machine into swap waits while others run.  Small ones overtake it for two seconds.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Iterator

from sccache_py.holders import Action, Admit, Excess, Holder, Need, Offer, Revoke, Role

__all__ = ["Action", "Admit", "Excess", "Holder", "Need", "Offer", "Revoke", "Role", "Tokens"]

# An unread offer moves on to another when it was not taken for so long.
OFFER_TURN_S = 0.010

# A build that left an offer unread is asked again after this time, if others wait: one token idles for 1/25 of it.
PROBE_S = 0.250

BURST_S, BURSTS, PAUSE_S = 0.001, 3, 0.050

# How long smaller compiles overtake one that waits for memory, and how often memory is looked at for it.
OVERTAKE_S, MEMORY_LOOK_S = 2.0, 0.100

# Left to the rest of the machine when a compile's memory is predicted.
MEMORY_MARGIN_KIB = 64 * 1024

_NO_NEED = Need()


class Tokens:
    """Every event returns what is to be done, in this order.  `now` never goes back."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.in_use = 0
        self.reclaimed = 0
        self.holders: dict[int, Holder] = {}
        self.available_kib: int | None = None  # what the machine has left; None: not known, or not to be looked at
        self.next_tick: float | None = None  # when `tick` has something to do
        self._queues: dict[str, deque[Holder]] = {}
        self._borrowing: dict[int, Holder] = {}  # of those who wait, the ones who name a lender
        self._rotation: OrderedDict[str, None] = OrderedDict()  # builds, the next one first
        self._running: Counter[str] = Counter()  # by build
        self._newcomers: set[str] = set()
        self._newcomer_was_last = False
        self._joined: list[Holder] = []  # the one who was offered something longest ago first
        self._builds: dict[str, Holder] = {}  # the holders of Role.BUILD that run, by their build
        self._guest: Holder | None = None  # the check that runs on the house

    @property
    def free(self) -> int:
        return max(0, self.size - self.in_use)

    @property
    def waiting(self) -> int:
        return sum(len(queue) for queue in self._queues.values())

    @property
    def guest(self) -> int | None:
        """The check that runs on the house."""
        return self._guest.id if self._guest is not None else None

    @property
    def minds_memory(self) -> bool:
        """Whether somebody waits whose memory is predicted: then `available_kib` decides."""
        return any(h.need.peak_kib for queue in self._queues.values() for h in queue)

    # -- events --------------------------------------------------------------------------------------------------

    def wants(
        self,
        now: float,
        id: int,
        build: str,
        role: Role = Role.COMPILE,
        lender: int | None = None,
        need: Need | None = None,
        checks: bool = False,
    ) -> list[Action]:
        """A compile or a build wants to start.  lender: who it runs under; unknown ones are nobody.  checks: it makes no code."""
        holder = Holder(id, build, role, self.holders.get(lender) if lender is not None else None, need or _NO_NEED)
        if holder.lender is not None and not holder.lender.running:
            holder.lender = None
        self.holders[id] = holder
        if role is Role.BUILD and sum(1 for b in self._builds.values() if b.base) >= self.size - 1:
            self._start(now, holder)
            return [Admit(id), *self._pump(now)]
        if checks and self._may_be_guest(now, holder):
            self._guest = holder
            self._start(now, holder)
            return [Admit(id), *self._pump(now)]
        if role is Role.COMPILE and self._has_no_rival(holder) and self._fits(now, holder):
            self._newcomer_was_last = not self._running[build]
            return [self._admit(now, holder, None), *self._pump(now)]
        queue = self._queues.get(build)
        if queue is None:
            queue = self._queues[build] = deque()
            if build not in self._rotation:
                self._rotation[build] = None
                if not self._running[build]:
                    self._newcomers.add(build)
        queue.append(holder)
        if holder.lender is not None:
            self._borrowing[id] = holder
        return self._pump(now)

    def gone(self, now: float, id: int) -> list[Action]:
        """It ended, or it does not want any more."""
        holder = self.holders.pop(id)
        if not holder.running:
            self._unqueue(holder)
            return self._pump(now)
        if holder is self._guest:
            self._guest = None
        self._running[holder.build] -= 1
        if not self._running[holder.build]:
            del self._running[holder.build]
        if holder.joined:
            holder.joined = False
            self._joined.remove(holder)
            self._reclaim(holder)
        if holder.role is Role.BUILD:
            self._builds.pop(holder.build, None)
            if holder.build not in self._queues:
                self._leave_rotation(holder.build)
        if holder.base:
            if holder.borrowers:
                self._hand_over(holder, holder.payer)
            elif holder.payer is None:
                self.in_use -= 1
            else:
                holder.payer.borrowers.remove(holder)
        for h in self._borrowing.values():
            if h.lender is holder:
                h.lender = None
        self._borrowing = {i: h for i, h in self._borrowing.items() if h.lender is not None}
        return self._pump(now)

    def joined(self, now: float, id: int) -> list[Action]:
        """It has a channel now."""
        holder = self.holders[id]
        holder.joined = True
        self._joined.append(holder)
        return self._pump(now)

    def parted(self, now: float, id: int, returned: int = 0, revoked: int = 0) -> list[Action]:
        """Its channel is closed, after a last look as for `counted`; whatever it still held is taken back."""
        holder = self.holders[id]
        actions: list[Action] = []
        if holder.joined:
            # First of all out of sight: each token that comes back might be offered at once, and not to a closed channel.
            holder.joined = False
            self._joined.remove(holder)
            actions = self._count(now, holder, 0, returned, revoked)
            self._reclaim(holder)
        return actions + self._pump(now)

    def counted(self, now: float, id: int, unread: int, returned: int = 0, revoked: int = 0) -> list[Action]:
        """News of a channel: how much lies unread now; what the holder gave back; what we read back ourselves.

        `unread` must have been read after the two others.
        """
        return self._count(now, self.holders[id], unread, returned, revoked) + self._pump(now)

    def refused(self, now: float, id: int) -> list[Action]:
        """The offer could not be put into its channel."""
        holder = self.holders[id]
        holder.offered -= 1
        holder.unread -= 1
        self.in_use -= 1
        holder.paused_until = now + PAUSE_S
        return self._pump(now)

    def resized(self, now: float, size: int) -> list[Action]:
        """N changes: new tokens are there at once, superfluous ones go as they are given back."""
        self.size = size
        return self._pump(now)

    def tick(self, now: float) -> list[Action]:
        """Time has passed."""
        return self._pump(now)

    # -- accounts ------------------------------------------------------------------------------------------------

    def _count(self, now: float, holder: Holder, unread: int, returned: int, revoked: int) -> list[Action]:
        actions: list[Action] = []
        unread = max(0, min(unread, holder.out - revoked))
        fair = max(0, min(returned, holder.out - revoked - unread))
        if fair < returned:
            if not holder.excess:
                actions.append(Excess(holder.id, returned - fair))
            holder.excess += returned - fair
        if unread < holder.unread - revoked:
            holder.taken_at = now
            holder.hungry = True
            holder.granted = False
        holder.granted = holder.granted and unread > 0
        holder.unread = unread
        if fair:
            self._note_cycle(holder, now)
        for _ in range(revoked + fair):
            holder.back += 1
            self._take_back(holder)
        return actions

    def _start(self, now: float, holder: Holder) -> None:
        holder.running = True
        self._running[holder.build] += 1
        holder.began = now
        holder.blocked_since = None
        if holder.role is Role.BUILD:
            self._builds[holder.build] = holder
            self._rotation.setdefault(holder.build, None)

    def _has_no_rival(self, holder: Holder) -> bool:
        """A token is free, and nobody waits or takes turns: the way of most compiles, for which no queue is made."""
        return self.in_use < self.size and not (self._queues or self._builds or self._guest) and holder.lender is None

    def _may_be_guest(self, now: float, holder: Holder) -> bool:
        busy = self.in_use >= self.size and self._guest is None and holder.lender is None
        return busy and not self._running[holder.build] and holder.build not in self._queues and self._fits(now, holder)

    def _admit(self, now: float, holder: Holder, payer: Holder | None) -> Action:
        self._unqueue(holder)
        holder.base = True
        holder.payer = payer
        if payer is None:
            self.in_use += 1
        else:
            payer.borrowers.append(holder)
        self._start(now, holder)
        return Admit(holder.id)

    def _unqueue(self, holder: Holder) -> None:
        self._borrowing.pop(holder.id, None)
        queue = self._queues.get(holder.build)
        if queue is not None and holder in queue:
            queue.remove(holder)
            if not queue:
                del self._queues[holder.build]
                if holder.build not in self._builds:
                    self._leave_rotation(holder.build)

    def _leave_rotation(self, build: str) -> None:
        self._rotation.pop(build, None)
        self._newcomers.discard(build)

    def _hand_over(self, holder: Holder, payer: Holder | None) -> None:
        """One of its borrowers keeps the token that it was lent."""
        heir = holder.borrowers.pop()
        heir.payer = payer
        if payer is not None:
            payer.borrowers[payer.borrowers.index(holder)] = heir

    def _take_back(self, holder: Holder) -> None:
        """A token came out of its channel: to whom it was lent while that runs, else into the pool."""
        if len(holder.borrowers) > holder.base + holder.held:
            self._hand_over(holder, None)
        else:
            self.in_use -= 1

    def _reclaim(self, holder: Holder) -> None:
        self.reclaimed += holder.held
        holder.unread = 0
        while holder.out:
            holder.back += 1
            self._take_back(holder)

    def _note_cycle(self, holder: Holder, now: float) -> None:
        if holder.role is Role.BUILD:
            return  # it runs short jobs, which is its right
        holder.bursts = holder.bursts + 1 if now - holder.taken_at < BURST_S else 0
        if holder.bursts >= BURSTS:
            holder.bursts = 0
            holder.paused_until = now + PAUSE_S

    # -- decisions -----------------------------------------------------------------------------------------------

    def _pump(self, now: float) -> list[Action]:
        actions: list[Action] = []
        if not self._queues and not self._joined:
            self.next_tick = None
            return actions  # nobody waits and nobody could use more: the way of most compiles
        if self._guest is not None and self.in_use < self.size:
            # The first token that is free: what it competes with for a processor is then as much as if it had had one.
            self._guest.base = True
            self._guest = None
            self.in_use += 1
        self._look_for_unread(now)
        for holder in [h for h in self._borrowing.values() if h.lender is not None and h.lender.spare > 0]:
            if holder.lender is not None and holder.lender.spare > 0 and self._fits(now, holder):
                actions.append(self._admit(now, holder, holder.lender))
        while self.in_use < self.size and (build := self._next_turn(now)) is not None:
            waiter = self._first_fit(now, build)
            actions.append(self._offer(now, self._builds[build]) if waiter is None else self._admit(now, waiter, None))
        # The next in turn is worth a revocation only if it is a compile; a build may be asked when there is a token.
        short = any(self._first_fit(now, build) is not None for build in self._queues)
        if not short and self.in_use < self.size:
            actions += self._fill(now)
        if (revocation := self._revocation(now, short)) is not None:
            actions.append(revocation)
        self.next_tick = self._soonest(now, short)
        return actions

    def _look_for_unread(self, now: float) -> None:
        for holder in self._builds.values():
            if holder.unread and now - holder.offered_at >= OFFER_TURN_S:
                if holder.hungry:
                    holder.probe_at = now + PROBE_S
                holder.hungry = False
            elif not holder.unread and not holder.hungry and now >= holder.probe_at:
                holder.hungry = True

    def _next_turn(self, now: float) -> str | None:
        if not self._rotation:
            return None
        ripe = [b for b in self._rotation if self._first_fit(now, b) is not None or self._asks(now, b)]
        if not ripe:
            return None
        new = next((b for b in ripe if b in self._newcomers), None)
        old = next((b for b in ripe if b not in self._newcomers), None)
        chosen = new if new is not None and (old is None or not self._newcomer_was_last) else old
        assert chosen is not None
        self._newcomer_was_last = chosen is new
        self._newcomers.discard(chosen)
        self._rotation.move_to_end(chosen)
        return chosen

    def _first_fit(self, now: float, build: str) -> Holder | None:
        """Who of this build's waiting compiles could run, had it a token."""
        queue = self._queues.get(build, ())
        if self._longest_blocked(now):
            # It has been overtaken long enough: what runs now ends, and then it is its turn.
            return next((h for h in queue if h.blocked_since is not None and self._fits(now, h)), None)
        return next((h for h in queue if self._fits(now, h)), None)

    def _longest_blocked(self, now: float) -> bool:
        if self.available_kib is None:
            return False
        return any(h.blocked_since is not None and now - h.blocked_since >= OVERTAKE_S for queue in self._queues.values() for h in queue)

    def _fits(self, now: float, holder: Holder) -> bool:
        """Whether its memory is there, as far as it can be told."""
        if not holder.need.peak_kib or self.available_kib is None or (holder.lender and holder.lender.role is Role.COMPILE):
            return True
        running = [h for h in self.holders.values() if h.running and h.role is Role.COMPILE]
        # What a running compile has not grown to yet is not missing from available_kib yet.
        growing = sum(h.need.peak_kib * max(0.0, 1 - (now - h.began) / h.need.took_s) for h in running if h.need.took_s > 0)
        if not running or holder.need.peak_kib + growing + MEMORY_MARGIN_KIB <= self.available_kib:
            return True
        if holder.blocked_since is None:
            holder.blocked_since = now
        return False

    def _asks(self, now: float, build: str) -> bool:
        holder = self._builds.get(build)
        return holder is not None and holder.hungry and self._may_be_offered(now, holder)

    def _limit(self, role: Role) -> int:
        return -(-2 * self.size // max(1, sum(1 for h in self._joined if h.role is role)))

    def _may_be_offered(self, now: float, holder: Holder, more: bool = False) -> bool:
        """more: beside what lies there already."""
        if not holder.joined or (holder.unread and not more) or now < holder.paused_until:
            return False
        return holder.out < self._limit(holder.role)

    def _offer(self, now: float, holder: Holder) -> Action:
        holder.offered += 1
        holder.unread += 1
        holder.offered_at = now
        holder.granted = True
        self.in_use += 1
        self._joined.remove(holder)
        self._joined.append(holder)
        return Offer(holder.id)

    def _fill(self, now: float) -> Iterator[Action]:
        """Nobody waits: one offer for each, in turn."""
        for holder in list(self._joined):
            if self.in_use >= self.size:
                return
            if self._may_be_offered(now, holder):
                yield self._offer(now, holder)
        # A build may take several at once: ninja looks only when one of its jobs ends.
        builds = [h for h in self._joined if h.role is Role.BUILD] if self._builds else []
        while (builds := [h for h in builds if self._may_be_offered(now, h, more=True)]) and self.in_use < self.size:
            yield self._offer(now, min(builds, key=lambda h: h.unread))

    def _revocation(self, now: float, short: bool) -> Revoke | None:
        """One at a time: what comes of it may make the next one needless."""
        unread = [h for h in self._joined if h.unread]
        if not unread:
            return None
        for holder in unread:
            asked = holder.role is Role.BUILD and holder.granted and holder.hungry  # its turn is not over
            if self.in_use > self.size or len(holder.borrowers) > holder.base + holder.held or (short and not asked):
                return Revoke(holder.id, holder.unread - 1)
            if short and holder.unread > 1:
                return Revoke(holder.id, 1)
        if not short and self.in_use == self.size and any(self._may_be_offered(now, h) for h in self._joined):
            for holder in unread:
                if holder.unread > 1:
                    return Revoke(holder.id, holder.unread - 1)
                if now - holder.offered_at >= OFFER_TURN_S:
                    self._joined.remove(holder)
                    self._joined.append(holder)
                    return Revoke(holder.id)
        return None

    def _soonest(self, now: float, short: bool) -> float | None:
        times = []
        if any(h.blocked_since is not None for queue in self._queues.values() for h in queue):
            times.append(now + MEMORY_LOOK_S)
        unread = [h for h in self._joined if h.unread]
        if short:
            times += [h.offered_at + OFFER_TURN_S for h in unread]
            times += [h.probe_at for h in self._builds.values() if not h.unread and not h.hungry]
        elif self.in_use < self.size:
            times += [h.paused_until for h in self._joined if not h.unread and h.paused_until > now]
        elif len(unread) < len(self._joined):
            limits = {role: self._limit(role) for role in Role}
            if any(not h.unread and h.held < limits[h.role] for h in self._joined):
                times += [h.offered_at + OFFER_TURN_S for h in unread]
                times += [h.paused_until for h in self._joined if unread and h.paused_until > now]
        # An offer whose time is over was dealt with just now, or nobody else wants it.
        return max(min(times), now + 0.0005) if times else None
