"""The queue of one peer."""

from __future__ import annotations

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from p2psip.errors import LinkError
from p2psip.storage.lanes import IN_FLIGHT, Job, Lane

from .test_store import at


class LaneTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.running: list[tuple[Job, Deferred[None]]] = []
        self.lane = Lane(self.run_job)

    async def run_job(self, job: Job) -> None:
        done: Deferred[None] = Deferred()
        self.running.append((job, done))
        await done

    def end(self, position: int = 0) -> None:
        self.running.pop(position)[1].callback(None)

    def test_so_many_at_a_time(self) -> None:
        for number in range(IN_FLIGHT + 5):
            self.lane.add(Job(at(number), None, 1))
        self.assertEqual((len(self.running), len(self.lane)), (IN_FLIGHT, IN_FLIGHT + 5))
        self.end()
        self.assertEqual((len(self.running), len(self.lane)), (IN_FLIGHT, IN_FLIGHT + 4))

    def test_one_of_a_resource_at_a_time(self) -> None:
        """What is added meanwhile waits, in one job."""
        self.lane.add(Job(at(1), {1: [None]}, 1))
        self.lane.add(Job(at(1), {1: [None], 2: [0]}, 1))
        self.lane.add(Job(at(1), {2: [1]}, 1))
        self.assertEqual(len(self.running), 1)
        self.end()
        ((job, _),) = self.running
        self.assertEqual(job.wanted, {1: {None}, 2: {0, 1}})

    def test_all_includes_some(self) -> None:
        for first, second in (({1: [None]}, None), (None, {1: [None]})):
            job = Job(at(1), first, 1)
            job.include(Job(at(1), second, 1))
            self.assertIsNone(job.wanted)

    def test_wait(self) -> None:
        """Those named, and not what comes later of others; but what comes later of them."""
        waiting = self.lane.wait_for([at(1), at(2)])
        for number in (1, 2, 3):
            self.lane.add(Job(at(number), None, 1))
        self.lane.add(Job(at(2), None, 1))
        self.end(0)
        self.end(0)
        self.assertNoResult(waiting)
        self.end(1)
        self.successResultOf(waiting)
        self.assertEqual(len(self.running), 1)
        self.successResultOf(self.lane.wait_for([]))

    def test_give_up(self) -> None:
        waiting = self.lane.wait_for([at(30)])
        for number in range(31):
            self.lane.add(Job(at(number), None, 1))
        self.lane.give_up(LinkError("lost"))
        self.failureResultOf(waiting, LinkError)
        self.assertEqual(len(self.lane), IN_FLIGHT)
        self.end()
        self.assertEqual(len(self.lane), IN_FLIGHT - 1)

    def test_thousands_that_end_at_once(self) -> None:
        """Jobs that need not wait do not pile up on the stack, and a defect in one stops no other."""
        ended = []

        async def run(job: Job) -> None:
            await succeed(None)
            ended.append(job.resource)
            if job.resource == at(7):
                raise ZeroDivisionError

        lane = Lane(run)
        waiting = lane.wait_for([at(number) for number in range(5000)])
        for number in range(5000):
            lane.add(Job(at(number), None, 1))
        self.successResultOf(waiting)
        self.assertEqual((len(ended), len(lane)), (5000, 0))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
