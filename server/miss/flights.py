"""Single flight: of equal recipes that miss at the same time one compiles, the others wait and look again.

Equal recipe does not mean equal result: two checkouts may differ in a header.  So a waiter is given nothing; it repeats its
lookup with its own files when the leader's result is stored, and compiles if nothing holds.  A waiter holds no token; one that runs
within a build holds one all the same, its build's, so it waits only for leaders that have theirs (pipeline.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
from collections.abc import Iterator

from sccache_py.server.jobs.under_way import Seen


class Landing(enum.Enum):
    STORED = enum.auto()  # there is something new in the store
    NOTHING = enum.auto()  # it ran to its end, which helps nobody else
    ABANDONED = enum.auto()  # its client went away: one of those who waited should try


class Flights:
    class Flight:
        def __init__(self, flights: Flights, recipe: bytes) -> None:
            self._flights = flights
            self._recipe = recipe
            self._kept = False
            self.leader: Seen | None = None
            self._landed: asyncio.Future[Landing] = asyncio.get_running_loop().create_future()

        def keep(self) -> None:
            """The leader's answer is given but its result is still being stored: land() follows."""
            self._kept = True

        def land(self, landing: Landing) -> None:
            self._flights._leave(self._recipe, self)
            if not self._landed.done():
                self._landed.set_result(landing)

        async def landed(self) -> Landing:
            return await asyncio.shield(self._landed)

    def __init__(self) -> None:
        self._by_recipe: dict[bytes, Flights.Flight] = {}

    def under_way(self, recipe: bytes) -> Flight | None:
        return self._by_recipe.get(recipe)

    @contextlib.contextmanager
    def lead(self, recipe: bytes, leader: Seen | None = None) -> Iterator[Flight]:
        flight = Flights.Flight(self, recipe)
        flight.leader = leader
        self._by_recipe.setdefault(recipe, flight)
        try:
            yield flight
        except asyncio.CancelledError:
            flight.land(Landing.ABANDONED)
            raise
        finally:
            if not flight._kept:
                flight.land(Landing.NOTHING)

    def _leave(self, recipe: bytes, flight: Flight) -> None:
        if self._by_recipe.get(recipe) is flight:
            del self._by_recipe[recipe]
