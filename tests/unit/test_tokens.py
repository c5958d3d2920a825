"""The policy of the jobserver, rule by rule; test_tokens_simulation.py looks for what happens when they meet."""

from __future__ import annotations

import random

from sccache_py.tokens import (
    BURSTS,
    MEMORY_MARGIN_KIB,
    OFFER_TURN_S,
    OVERTAKE_S,
    PAUSE_S,
    PROBE_S,
    Action,
    Admit,
    Excess,
    Need,
    Offer,
    Revoke,
    Role,
    Tokens,
)


def running(policy: Tokens, *ids: int, channel: bool = True, build: str = "b") -> None:
    """Compiles that were admitted at once; what they are offered stays unread."""
    for id in ids:
        assert Admit(id) in policy.wants(0.0, id, build)
    for id in ids if channel else ():
        policy.joined(0.0, id)


def test_builds_that_always_wait_are_served_in_turn() -> None:
    """A big build's hundred compiles must not stand before a small one's two."""
    rng = random.Random(1)
    policy = Tokens(3)
    order: list[str] = []
    runs: list[int] = []
    who: dict[int, str] = {}

    def note(actions: list[Action]) -> None:
        for action in actions:
            assert isinstance(action, Admit)
            order.append(who[action.holder])
            runs.append(action.holder)

    def ask(build: str) -> None:
        who[len(who)] = build
        note(policy.wants(0.0, len(who) - 1, build))

    for build in "abcde":
        for _ in range(rng.randrange(2, 20)):
            ask(build)
    for _ in range(200):
        ended = runs.pop(rng.randrange(len(runs)))
        ask(who[ended])
        note(policy.gone(0.0, ended))
    for start in range(20, 195):
        assert len(set(order[start : start + 8])) == 5, "one of five builds had no turn in eight"


def test_a_newcomer_is_admitted_at_the_next_compiles_end_but_not_two_in_a_row() -> None:
    """An editor's check answers while a big build runs; a flood of checks does not stop the build."""
    policy = Tokens(2)
    running(policy, 1, 2, channel=False, build="big")
    for id in (3, 4, 5):
        policy.wants(0.0, id, "big")
    policy.wants(0.1, 6, "check")
    policy.wants(0.1, 7, "another check")
    assert policy.gone(0.2, 1) == [Admit(6)]
    assert policy.gone(0.3, 2) == [Admit(3)]
    assert policy.gone(0.4, 3) == [Admit(7)]
    assert policy.gone(0.5, 6) == [Admit(4)]


def test_an_offer_goes_back_before_a_new_compile_has_to_wait() -> None:
    """A new compile brings more than another thread of an old one."""
    policy = Tokens(2)
    running(policy, 1)
    assert policy.holders[1].unread == 1
    assert policy.wants(0.0, 2, "b") == [Revoke(1)]
    assert policy.counted(0.0, 1, unread=0, revoked=1)[0] == Admit(2)


def test_while_a_compile_waits_nothing_is_offered() -> None:
    """cargo's rule: spawn first, then fill."""
    policy = Tokens(2)
    running(policy, 1, 2)
    policy.wants(0.0, 3, "b")
    policy.wants(0.0, 4, "b")
    assert policy.gone(0.1, 2) == [Admit(3)]
    assert policy.gone(0.2, 3) == [Admit(4)]
    assert policy.gone(0.3, 4) == [Offer(1)]


def test_a_compiler_that_only_juggles_tokens_rests_for_a_while() -> None:
    """rustc took and returned 32 tokens within milliseconds for 16 units: that costs more than it brings."""
    policy = Tokens(2)
    running(policy, 1)
    now = 1.0
    for cycle in range(BURSTS):
        assert policy.holders[1].unread == 1, f"not offered for cycle {cycle}"
        policy.counted(now, 1, unread=0)
        actions = policy.counted(now + 0.0005, 1, unread=0, returned=1)
        now += 0.01
    assert actions == []
    end = policy.holders[1].paused_until
    assert abs(end - (now - 0.01 + 0.0005 + PAUSE_S)) < 1e-9
    assert policy.next_tick is not None
    assert abs(policy.next_tick - end) < 1e-9
    assert policy.tick(end) == [Offer(1)]


def test_slow_cycles_are_no_juggling() -> None:
    """A codegen thread that ran for five milliseconds was worth its token."""
    policy = Tokens(2)
    running(policy, 1)
    for cycle in range(10):
        policy.counted(cycle, 1, unread=0)
        assert policy.counted(cycle + 0.005, 1, unread=0, returned=1) == [Offer(1)]


def test_one_compiler_holds_no_more_than_its_share() -> None:
    """The first rustc of a build would otherwise sit on all tokens when the second one looks for codegen threads."""
    policy = Tokens(16)
    running(policy, 1, 2, 3, 4)
    while policy.holders[1].unread:
        policy.counted(0.0, 1, unread=0)
    assert policy.holders[1].held == 8  # 2·16 / 4
    assert policy.free == 1


def test_where_tokens_are_scarce_an_unread_offer_moves_on() -> None:
    """It might lie for seconds before a compiler that is still parsing, while another one could use it."""
    policy = Tokens(4)
    running(policy, 1, 2, 3)
    assert [policy.holders[i].unread for i in (1, 2, 3)] == [1, 0, 0]
    assert policy.next_tick == OFFER_TURN_S
    assert policy.tick(OFFER_TURN_S) == [Revoke(1)]
    assert policy.counted(OFFER_TURN_S, 1, unread=0, revoked=1) == [Offer(2)]
    assert policy.tick(2 * OFFER_TURN_S) == [Revoke(2)]
    assert policy.counted(2 * OFFER_TURN_S, 2, unread=0, revoked=1) == [Offer(3)]


def test_what_is_returned_without_having_been_taken_does_not_make_the_pool_grow() -> None:
    """One program that miscounts must not put the machine into swap; it is said once."""
    policy = Tokens(3)
    running(policy, 1)
    policy.counted(0.0, 1, unread=0)
    said = [a for a in policy.counted(0.1, 1, unread=0, returned=5) if isinstance(a, Excess)]
    said += [a for a in policy.counted(0.2, 1, unread=0, returned=5) if isinstance(a, Excess)]
    assert said == [Excess(1, 3)]
    policy.parted(0.3, 1)
    policy.gone(0.3, 1)
    assert (policy.in_use, policy.free) == (0, 3)


def test_the_dead_give_everything_back() -> None:
    """make's own pool is narrower by each process that was killed (cargo issue #14102)."""
    policy = Tokens(4)
    running(policy, 1)
    for _ in range(3):
        policy.counted(0.0, 1, unread=0)
    assert policy.free == 0
    policy.parted(1.0, 1)
    policy.gone(1.0, 1)
    assert policy.free == 4
    assert policy.reclaimed == 3


def test_a_smaller_pool_takes_offers_back_and_waits_for_the_rest() -> None:
    """--jobs N during a build must neither kill nor cheat."""
    policy = Tokens(4)
    running(policy, 1, 2)
    actions = policy.resized(0.0, 2)
    assert actions == [Revoke(1)]
    assert policy.counted(0.0, 1, unread=0, revoked=1) == [Revoke(2)]
    assert policy.counted(0.0, 2, unread=0, revoked=1) == []
    assert (policy.in_use, policy.free) == (2, 0)
    policy.resized(0.0, 1)
    policy.wants(0.0, 3, "b")
    assert policy.gone(0.0, 1) == []
    assert policy.gone(0.0, 2) == [Admit(3)]


def test_a_compile_from_inside_a_build_runs_on_the_builds_own_token() -> None:
    """cargo holds the token while it waits for us: to ask for a second one is how sccache #232 deadlocked."""
    policy = Tokens(2)
    assert policy.wants(0.0, 1, "lease", Role.BUILD) == [Admit(1)]
    policy.wants(0.0, 2, "elsewhere")
    assert policy.free == 0
    assert policy.wants(0.0, 3, "lease", lender=1) == [Admit(3)]
    assert policy.in_use == 2
    assert policy.wants(0.0, 4, "lease", lender=1) == []  # its tool has no second token: it waits like all
    assert policy.gone(0.1, 3) == [Admit(4)]
    policy.gone(0.2, 4)
    assert policy.in_use == 2


def test_a_compile_that_calls_us_while_it_holds_the_last_token_is_let_in() -> None:
    """A compiler that is a script around us, with N=1, would wait for itself."""
    policy = Tokens(1)
    running(policy, 1, channel=False)
    assert policy.wants(0.0, 2, "b", lender=1) == [Admit(2)]
    assert policy.in_use == 1


def test_a_token_is_lent_as_soon_as_its_taking_is_known() -> None:
    """cargo reads a token and starts a rustc; that rustc's request may come before the news of the read."""
    policy = Tokens(4)
    policy.wants(0.0, 1, "lease", Role.BUILD)
    running(policy, 2, 3, channel=False)
    assert policy.joined(0.0, 1) == [Offer(1)]
    assert policy.wants(0.0, 4, "lease", lender=1) == [Admit(4)]
    policy.wants(0.0, 5, "lease", lender=1)
    assert not policy.holders[5].running
    assert policy.counted(0.001, 1, unread=0)[0] == Admit(5)
    assert policy.in_use == 4


def test_a_dead_wrapper_leaves_the_tokens_of_what_still_compiles() -> None:
    """Its compiles may run for a second; their tokens must not be given to others meanwhile."""
    policy = Tokens(2)
    policy.wants(0.0, 1, "lease", Role.BUILD)
    policy.wants(0.0, 2, "lease", lender=1)
    policy.gone(0.1, 1)
    assert policy.in_use == 1
    policy.gone(0.2, 2)
    assert policy.in_use == 0


def test_builds_never_hold_every_token() -> None:
    """They keep their first one until they end: an editor's check would wait for a whole build."""
    policy = Tokens(2)
    assert policy.wants(0.0, 1, "lease 1", Role.BUILD) == [Admit(1)]
    assert policy.wants(0.0, 2, "lease 2", Role.BUILD) == [Admit(2)]
    assert policy.wants(0.0, 3, "check") == [Admit(3)]
    assert policy.in_use == 2


def test_a_build_under_the_wrapper_takes_part_in_the_turns() -> None:
    """While an unwrapped build has a hundred compiles waiting, a wrapped one would otherwise run on one job."""
    policy = Tokens(3)
    policy.wants(0.0, 1, "lease", Role.BUILD)
    running(policy, 2, 3, channel=False, build="big")
    policy.joined(0.0, 1)
    for id in range(4, 10):
        policy.wants(0.0, id, "big")
    assert policy.gone(0.1, 2) == [Offer(1)]
    assert policy.counted(0.1, 1, unread=0) == []
    assert policy.gone(0.2, 3) == [Admit(4)]
    assert policy.gone(0.3, 4) == [Offer(1)]


def test_a_build_may_take_several_at_once_and_gives_them_up_one_by_one() -> None:
    """ninja looks for tokens only when one of its jobs ends: then all it may have must lie there."""
    policy = Tokens(5)
    policy.wants(0.0, 1, "lease", Role.BUILD)
    assert policy.joined(0.0, 1) == [Offer(1)] * 4
    assert policy.wants(0.02, 2, "check") == [Revoke(1, keep=3)]
    assert policy.counted(0.02, 1, unread=3, revoked=1) == [Admit(2)]
    assert policy.joined(0.02, 2) == [Revoke(1, keep=2)]
    assert policy.counted(0.02, 1, unread=2, revoked=1) == [Offer(2)]


def test_a_build_that_does_not_want_more_jobs_costs_the_waiting_little() -> None:
    """Whether it does shows only by offering; ten milliseconds in each quarter of a second."""
    policy = Tokens(3)
    policy.wants(0.0, 1, "lease", Role.BUILD)
    running(policy, 2, channel=False, build="big")
    policy.joined(0.0, 1)
    assert policy.holders[1].unread == 1
    policy.wants(0.001, 3, "big")
    assert policy.next_tick == OFFER_TURN_S
    assert policy.tick(OFFER_TURN_S) == [Revoke(1)]
    assert policy.counted(OFFER_TURN_S, 1, unread=0, revoked=1) == [Admit(3)]
    policy.wants(0.02, 4, "big")
    assert policy.gone(0.03, 3) == [Admit(4)]
    policy.wants(0.04, 5, "big")
    policy.wants(0.04, 6, "big")
    later = OFFER_TURN_S + PROBE_S
    assert Offer(1) in policy.gone(later, 4) + policy.gone(later, 2)


def test_a_compile_that_would_swap_waits_while_others_run_and_one_always_runs() -> None:
    """Four links of 6 GB on 16 GB took twenty minutes instead of two."""
    policy = Tokens(4)
    policy.available_kib = 10_000_000
    big = Need(6_000_000, took_s=60.0)
    assert policy.wants(0.0, 1, "b", need=big) == [Admit(1)]
    assert policy.wants(0.0, 2, "b", need=big) == []  # the first will grow to 6 GB, though it has not yet
    assert policy.next_tick is not None
    policy.available_kib = 4_000_000 + MEMORY_MARGIN_KIB
    assert policy.tick(30.0) == []
    assert policy.gone(60.0, 1) == [Admit(2)]


def test_small_compiles_overtake_one_that_waits_for_memory_but_not_for_ever() -> None:
    """Neither shall seven processors idle, nor the large one starve."""
    policy = Tokens(4)
    policy.available_kib = 1_000_000
    running(policy, 1, channel=False)
    assert policy.wants(0.0, 2, "b", need=Need(6_000_000, 60.0)) == []
    assert policy.wants(0.1, 3, "b") == [Admit(3)]
    assert policy.wants(OVERTAKE_S + 0.1, 4, "b") == []
    policy.gone(3.0, 3)
    assert policy.gone(3.1, 1) == [Admit(2), Admit(4)]


def test_a_compile_whose_memory_is_unknown_never_waits_for_it() -> None:
    """The prediction holds back what it knows to be large; it does not guess."""
    policy = Tokens(2)
    policy.available_kib = 0
    assert policy.wants(0.0, 1, "b") == [Admit(1)]
    assert policy.wants(0.0, 2, "b") == [Admit(2)]


def test_a_check_of_a_build_with_nothing_running_is_on_the_house_one_at_a_time() -> None:
    """An editor's check must not wait for a big crate of somebody else's build."""
    policy = Tokens(2)
    running(policy, 1, 2, build="big", channel=False)
    assert policy.wants(0.0, 3, "big", checks=True) == [], "its own build has all tokens"
    assert policy.wants(0.0, 4, "editor", checks=True) == [Admit(4)]
    assert policy.in_use == 2
    assert policy.wants(0.0, 5, "editor", checks=True) == [], "its build has something running"
    assert policy.wants(0.0, 6, "another", checks=True) == [], "there is one already"
    assert policy.gone(0.1, 4) == [], "nobody else may run for that"
    assert policy.wants(0.1, 7, "third", checks=True) == [Admit(7)]
    assert policy.gone(0.2, 1) == [], "the check takes the first token that is free"
    assert policy.in_use == 2
    assert policy.gone(0.3, 7) == [Admit(6)]
    assert policy.in_use == 2


def test_a_check_with_a_token_free_takes_it() -> None:
    policy = Tokens(1)
    assert policy.wants(0.0, 1, "editor", checks=True) == [Admit(1)]
    assert policy.in_use == 1


def test_a_check_that_would_swap_waits_like_others() -> None:
    policy = Tokens(1)
    policy.available_kib = 1000 + MEMORY_MARGIN_KIB
    running(policy, 1, build="big", channel=False)
    assert policy.wants(0.0, 2, "editor", need=Need(2000, 1.0), checks=True) == []
    assert policy.wants(0.0, 3, "third", need=Need(500, 1.0), checks=True) == [Admit(3)]
