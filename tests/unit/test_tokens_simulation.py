"""The policy of the jobserver under ten thousand schedules that no machine would show us.

A little world of pipes and processes stands beside the policy: compilers take and return when they like, notices arrive late or two at
a time, processes die holding tokens, N changes, builds come and go.  After each event the world's own count of what was given away is
compared with the policy's, and the rules that users rely on are checked.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass

import pytest

from sccache_py import tokens
from sccache_py.tokens import Admit, Excess, Need, Offer, Revoke, Role, Tokens

SCHEDULES = 10_000
STEPS = 24


@dataclass
class Process:
    """What a compiler or build does, and its channel as it really is."""

    id: int
    build: str
    role: Role
    admitted: bool = False
    channel: bool = False
    lying: int = 0  # written by us, not read by it
    taken: int = 0  # read by it, not written back
    returning: int = 0  # written back by it, not read by us
    behind: int = 0  # admissions of others since it waits


class World:
    """Applies the policy's actions at once, as the server does, and keeps its own books."""

    def __init__(self, rng: random.Random, with_memory: bool) -> None:
        self.rng = rng
        self.now = 0.0
        self.with_memory = with_memory
        self.policy = Tokens(rng.choice((1, 2, 3, 4, 8)))
        self.processes: dict[int, Process] = {}
        self.serial = 0
        self.refused: dict[int, float] = {}
        self.highest = self.policy.size  # what may still be out after N was made smaller

    # -- what the server does ------------------------------------------------------------------------------------

    def do(self, actions: list[tokens.Action]) -> None:
        queue = deque(actions)
        rounds = 0
        while queue:
            rounds += 1
            assert rounds < 1000, "the policy and the pipes talk without end"
            self.check_counts()
            match queue.popleft():
                case Admit(id):
                    self.admitted(id)
                case Offer(id):
                    self.offered(id, queue)
                case Revoke(id, keep):
                    process = self.processes[id]
                    revoked = max(0, process.lying - keep)
                    process.lying -= revoked
                    queue.extend(self.policy.counted(self.now, id, process.lying, revoked=revoked))
                case Excess(id, count):
                    assert count > 0
                    assert id in self.processes
        self.check()

    def admitted(self, id: int) -> None:
        process = self.processes[id]
        assert not process.admitted
        process.admitted = True
        if not self.policy.holders[id].base:
            return  # on the house: nobody waits longer for that
        waiting = [p for p in self.processes.values() if not p.admitted]
        for other in waiting:
            if other.build != process.build:
                other.behind += 1
            elif other.id > id:
                other.behind = 0  # its build had a turn

    def offered(self, id: int, queue: deque[tokens.Action]) -> None:
        process, holder = self.processes[id], self.policy.holders[id]
        if self.rng.random() < 0.02:
            self.refused[id] = self.now
            queue.extend(self.policy.refused(self.now, id))
            return
        process.lying += 1
        assert self.now >= holder.paused_until or self.refused.get(id) == self.now, "offered during a pause"
        others = sum(1 for h in self.policy.holders.values() if h.joined and h.role is holder.role)
        assert holder.held < -(-2 * self.policy.size // others), "offered above the cap"

    # -- what must always be true --------------------------------------------------------------------------------

    def check_counts(self) -> None:
        """Never more than N in all, never a lost token."""
        policy = self.policy
        channels = sum(h.out for h in policy.holders.values())
        bases = sum(1 for h in policy.holders.values() if h.base and h.payer is None)
        assert policy.in_use == channels + bases
        guests = [h for h in policy.holders.values() if h.running and h.role is Role.COMPILE and not h.base]
        assert len(guests) <= 1, "more than one check on the house"
        self.highest = max(policy.size, min(self.highest, policy.in_use))
        assert 0 <= policy.in_use <= self.highest
        assert policy.free == max(0, policy.size - policy.in_use)
        for holder in policy.holders.values():
            assert 0 <= holder.unread <= holder.out
            if holder.payer is not None:
                assert holder in holder.payer.borrowers
                assert holder.payer.id in policy.holders

    def check(self) -> None:
        self.check_counts()
        policy, now = self.policy, self.now
        for process in self.processes.values():
            holder = policy.holders[process.id]
            true_out = process.lying + process.taken + process.returning
            assert holder.out == true_out, "the pipes hold another number than the books"
            assert holder.unread >= process.lying
        starved = [h for h in policy.holders.values() if not h.running and (not self.with_memory or h.blocked_since is None)]
        if starved:
            assert policy.free == 0, "a token lies idle while a compile waits"
            for holder in policy.holders.values():
                if holder.role is Role.COMPILE:
                    assert not holder.unread, "offered while a compile waits"
        builds = len({p.build for p in self.processes.values()})
        for process in self.processes.values():
            if not process.admitted and not self.with_memory and self.first_of_its_build(process):
                # Every other turn may go to a newcomer, and there are never more of them than builds.
                assert process.behind <= 2 * builds + 2 * self.serial_builds_since(process), "starved"
        if policy.waiting == 0 and policy.free == 0 and policy.in_use == policy.size:
            joined = [h for h in policy.holders.values() if h.joined]
            eager = [h for h in joined if not h.unread and now >= h.paused_until and h.held < self.cap(h)]
            late = [h for h in joined if h.unread and now - h.offered_at >= tokens.OFFER_TURN_S]
            assert not (eager and late), "an unread offer did not move on"
            if eager and any(h.unread for h in joined):
                assert policy.next_tick is not None
                assert policy.next_tick <= now + tokens.OFFER_TURN_S

    def cap(self, holder: tokens.Holder) -> int:
        others = sum(1 for h in self.policy.holders.values() if h.joined and h.role is holder.role)
        return -(-2 * self.policy.size // others)

    def first_of_its_build(self, process: Process) -> bool:
        return all(p.id >= process.id for p in self.processes.values() if p.build == process.build and not p.admitted)

    def serial_builds_since(self, process: Process) -> int:
        return len({p.build for p in self.processes.values() if p.id > process.id})

    # -- what may happen -----------------------------------------------------------------------------------------

    def step(self) -> None:
        self.now += self.rng.choice((0.0, 0.0, 0.0002, 0.002, 0.004, 0.012, 0.06))
        if self.policy.next_tick is not None and self.policy.next_tick <= self.now:
            self.do(self.policy.tick(self.now))
        if self.with_memory:
            self.policy.available_kib = self.rng.choice((100_000, 500_000, 2_000_000))
        self.rng.choice(
            (self.arrive, self.arrive, self.arrive, self.take, self.take, self.take, self.give, self.give, self.notice, self.notice,
             self.end, self.end, self.over_return, self.resize, self.burst)
        )()  # fmt: skip

    def arrive(self) -> None:
        self.serial += 1
        build = self.rng.choice("abc") if self.rng.random() < 0.8 else f"one-shot-{self.serial}"
        role = Role.COMPILE if self.rng.random() < 0.9 else Role.BUILD
        lenders = [p for p in self.processes.values() if p.admitted]
        lender = self.rng.choice(lenders) if lenders and self.rng.random() < 0.3 else None
        if role is Role.BUILD:
            build, lender = f"lease-{self.serial}", None
        elif lender is not None:
            build = lender.build
        need = Need(self.rng.choice((0, 200_000, 1_000_000)), self.rng.random()) if self.with_memory else None
        self.processes[self.serial] = Process(self.serial, build, role)
        checks = role is Role.COMPILE and self.rng.random() < 0.3
        self.do(self.policy.wants(self.now, self.serial, build, role, lender.id if lender else None, need, checks))
        process = self.processes[self.serial]
        if process.admitted and self.rng.random() < 0.8:
            self.join(process)

    def join(self, process: Process) -> None:
        process.channel = True
        self.do(self.policy.joined(self.now, process.id))

    def some(self, condition) -> Process | None:
        fit = [p for p in self.processes.values() if condition(p)]
        return self.rng.choice(fit) if fit else None

    def take(self) -> None:
        if process := self.some(lambda p: p.lying):
            process.lying -= 1
            process.taken += 1
            if self.rng.random() < 0.7:
                self.tell(process)
        elif process := self.some(lambda p: p.admitted and not p.channel):
            self.join(process)

    def give(self) -> None:
        if process := self.some(lambda p: p.taken):
            process.taken -= 1
            process.returning += 1
            if self.rng.random() < 0.7:
                self.tell(process)

    def burst(self) -> None:
        """A rustc at the end of its codegen: take, return, take, return, each within a millisecond."""
        for _ in range(4):
            process = self.some(lambda p: p.lying)
            if process is None:
                return
            process.lying -= 1
            process.returning += 1
            self.now += 0.0001
            self.tell(process)

    def tell(self, process: Process) -> None:
        came, process.returning = process.returning, 0
        if process.role is Role.BUILD:
            # It gives back to where offers lie.
            process.lying += came
            came = 0
        self.do(self.policy.counted(self.now, process.id, process.lying, returned=came))

    def notice(self) -> None:
        if process := self.some(lambda p: p.channel):
            self.tell(process)

    def over_return(self) -> None:
        if self.rng.random() < 0.3 and (process := self.some(lambda p: p.channel and p.role is Role.COMPILE)):
            came, process.returning = process.returning, 0
            # Its books cannot tell tokens apart: what it still holds counts as returned first.
            forged = min(3, process.taken)
            process.taken -= forged
            self.do(self.policy.counted(self.now, process.id, process.lying, returned=came + 3))

    def resize(self) -> None:
        if self.rng.random() < 0.2:
            self.do(self.policy.resized(self.now, self.rng.choice((1, 2, 4, 8))))

    def end(self) -> None:
        """It exits, is killed with whatever it holds, or its client goes away while it waits."""
        if process := self.some(lambda p: True):
            if process.channel:
                revoked, process.lying = process.lying, 0
                came, process.returning = process.returning, 0
                process.taken = 0
                process.channel = False
                self.do(self.policy.parted(self.now, process.id, came, revoked))
            del self.processes[process.id]
            self.do(self.policy.gone(self.now, process.id))


@pytest.mark.slow
@pytest.mark.parametrize("with_memory", [False, True], ids=["tokens", "memory"])
def test_no_schedule_loses_a_token_or_starves_anybody(with_memory):
    """A token lost is a build that gets slower until the server is restarted; a token too many, a machine that swaps."""
    for seed in range(SCHEDULES // 2):
        world = World(random.Random(f"{seed}-{with_memory}"), with_memory)
        try:
            for _ in range(STEPS):
                world.step()
            world.policy.available_kib = None
            while world.processes:
                world.now += 0.01
                world.end()
            assert world.policy.in_use == 0
            assert world.policy.waiting == 0
        except AssertionError as e:
            raise AssertionError(f"schedule {seed}: {e}") from e


def test_the_way_without_a_queue_decides_as_the_one_with_it_does(monkeypatch):
    """Most compiles meet no rival and are admitted without standing in a queue: nobody's turn may depend on which way one came."""

    def decisions(seed: int) -> list[list[tokens.Action]]:
        seen: list[list[tokens.Action]] = []
        world = World(random.Random(seed), with_memory=bool(seed % 2))
        do = world.do
        world.do = lambda actions: (seen.append(list(actions)), do(actions))
        for _ in range(STEPS):
            world.step()
        return seen

    short = [decisions(seed) for seed in range(600)]
    monkeypatch.setattr(Tokens, "_has_no_rival", lambda self, holder: False)
    assert [decisions(seed) for seed in range(600)] == short
