"""Bindings: their order, their end, their number, and that they survive (RFC 3261 §10.3)."""

from __future__ import annotations

import sqlite3

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from p2psip.sip.errors import SIPFailure, Unavailable
from p2psip.sip.headers import parse_name_addr
from p2psip.sip.interfaces import BindingRow, Contact, IBindingJournal
from p2psip.sip.journal import SQLiteJournal
from p2psip.sip.location import Location, Wish

NOW = 1000.0
AOR = "alice@example.org"


def wish(text: str, expires: int = 100) -> Wish:
    contact = parse_name_addr(text)
    parameters = {name: value for name, value in contact.parameters.items() if name != "q"}
    return Wish(contact.uri_text, contact.uri, parameters, contact.q, expires)


class LocationTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.location = Location(most_contacts=3, most_aors=2)

    def update(
        self, *wishes: Wish, call_id: str = "c", cseq: int = 1, aor: str = AOR, now: float = NOW
    ) -> list[Contact]:
        self.location.commit(aor, self.location.prepare(aor, wishes, call_id, cseq, now, "UDP a 1", "desk"))
        return self.contacts(now, aor)

    def contacts(self, now: float = NOW, aor: str = AOR) -> list[Contact]:
        return [binding.contact(now) for binding in self.location.bindings(aor, now)]

    def test_preferred_first(self) -> None:
        self.assertEqual(
            self.update(wish("<sip:a@h>;q=0.1"), wish("<sip:b@h>"), wish("<sip:c@h>;q=0.5", 50)),
            [Contact("sip:b@h", None, 100), Contact("sip:c@h", 0.5, 50), Contact("sip:a@h", 0.1, 100)],
        )
        self.assertEqual([contact.uri for contact in self.contacts(NOW + 50)], ["sip:b@h", "sip:a@h"])
        self.assertEqual(self.contacts(NOW + 99.5)[0].expires, 1)

    def test_nothing_before_commit(self) -> None:
        prepared = self.location.prepare(AOR, [wish("<sip:a@h>")], "c", 1, NOW)
        self.assertEqual((len(prepared), self.contacts()), (1, []))

    def test_refresh_and_removal(self) -> None:
        self.update(wish("<sip:a@h>"), wish("<sip:b@h>"))
        self.assertEqual(
            self.update(wish("<sip:%61@H>;q=0.5", 200), wish("<sip:b@h>", 0), cseq=2), [Contact("sip:%61@H", 0.5, 200)]
        )
        self.update(wish("<sip:a@h>", 0), cseq=3)
        self.assertEqual((self.contacts(), len(self.location)), ([], 0))

    def test_order(self) -> None:
        """Of one Call-ID only a higher CSeq counts; another Call-ID always does. Nothing is done by halves."""
        self.update(wish("<sip:a@h>"), cseq=5)
        for cseq in (4, 5):
            self.assertRaises(SIPFailure, self.update, wish("<sip:b@h>"), wish("<sip:a@h>", 9), cseq=cseq)
        self.assertEqual(self.contacts(), [Contact("sip:a@h", None, 100)])
        self.assertEqual(self.update(wish("<sip:a@h>", 9), call_id="d", cseq=1), [Contact("sip:a@h", None, 9)])

    def test_removal_of_all(self) -> None:
        self.update(wish("<sip:a@h>"), cseq=5)
        self.assertRaises(SIPFailure, self.location.prepare_removal, AOR, "c", 5, NOW)
        self.assertEqual(self.location.prepare_removal(AOR, "c", 6, NOW), [])
        self.assertEqual(self.location.prepare_removal(AOR, "other", 1, NOW), [])
        self.assertEqual(self.location.prepare_removal(AOR, "c", 5, NOW + 100), [])

    def test_the_same_phone_elsewhere(self) -> None:
        """A flow with the same instance and reg-id replaces the old one (RFC 5626 §6)."""
        self.update(wish('<sip:a@h>;+sip.instance="<urn:uuid:1>";reg-id=1'))
        self.update(wish('<sip:a@i>;+sip.instance="<urn:uuid:1>";reg-id=1'), cseq=2)
        self.assertEqual([contact.uri for contact in self.contacts()], ["sip:a@i"])
        self.update(wish('<sip:a@j>;+sip.instance="<urn:uuid:1>";reg-id=2'), cseq=3)
        self.assertEqual([contact.uri for contact in self.contacts()], ["sip:a@i", "sip:a@j"])
        (first, _) = self.location.bindings(AOR, NOW)
        self.assertEqual(first.header(NOW), '<sip:a@i>;+sip.instance="<urn:uuid:1>";reg-id=1;expires=100')

    def test_bounds(self) -> None:
        """Of too many contacts those that end first give way; too many AORs are refused."""
        self.update(wish("<sip:a@h>", 30), wish("<sip:b@h>", 20), wish("<sip:c@h>", 10))
        self.update(wish("<sip:d@h>"), wish("<sip:e@h>"), call_id="d")
        self.assertEqual({contact.uri for contact in self.contacts()}, {"sip:a@h", "sip:d@h", "sip:e@h"})
        four = [wish(f"<sip:{number}@h>") for number in range(4)]
        self.assertEqual(self.assertRaises(SIPFailure, self.update, *four, call_id="e").status, 403)
        self.update(wish("<sip:a@h>"), aor="bob@example.org")
        self.assertRaises(Unavailable, self.update, wish("<sip:a@h>"), aor="carol@example.org")

    def test_twice_in_one_request(self) -> None:
        self.assertEqual(self.update(wish("<sip:a@h>", 5), wish("<sip:a@H>", 6)), [Contact("sip:a@H", None, 6)])

    def test_expiry(self) -> None:
        self.update(wish("<sip:a@h>", 10), wish("<sip:b@h>", 20))
        self.assertEqual(self.location.expire(NOW + 19), [])
        self.update(wish("<sip:a@h>", 40), call_id="d")
        self.assertEqual(self.location.expire(NOW + 20), [])
        self.assertEqual((self.location.expire(NOW + 40), len(self.location)), ([AOR], 0))
        self.assertEqual(self.location.expire(NOW + 50), [])

    def test_many_refreshes_do_not_pile_up(self) -> None:
        for number in range(3000):
            self.update(wish("<sip:a@h>"), cseq=number, now=NOW + number)
        self.assertTrue(len(self.location._expiries) < 1100)
        self.assertEqual(self.location.expire(NOW + 3200), [AOR])


class JournalTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = self.mktemp()
        self.journal = SQLiteJournal(sqlite3.connect(self.path, isolation_level=None))

    def test_interface(self) -> None:
        verifyObject(IBindingJournal, self.journal)

    def test_survives(self) -> None:
        """What was saved is there for another process, though the connection was never closed."""
        location = Location()
        for aor, name in ((AOR, "a"), ("bob@example.org", "b")):
            location.commit(
                aor, location.prepare(aor, [wish(f"<sip:{name}@h>;q=0.5;+x=y", 60)], "c", 7, NOW, "UDP a 1", "d")
            )
            self.journal.save(aor, [binding.row(aor) for binding in location.bindings(aor, NOW)])
        self.journal.save("bob@example.org", [])
        again = Location()
        again.load(SQLiteJournal(sqlite3.connect(self.path, isolation_level=None)).load(), NOW + 10)
        self.assertEqual(again.aors(), [AOR])
        (binding,) = again.bindings(AOR, NOW + 10)
        self.assertEqual(binding.row(AOR), BindingRow(AOR, "sip:a@h", ";+x=y", 0.5, NOW + 60, "c", 7, "UDP a 1", "d"))
        self.assertEqual(binding.header(NOW + 10), "<sip:a@h>;+x=y;q=0.5;expires=50")

    def test_what_ended_or_is_broken_stays_out(self) -> None:
        location = Location()
        good = BindingRow(AOR, "sip:a@h", "", None, NOW + 1, "c", 1, "", "")
        rows = [good, good._replace(uri="?", aor="b"), good._replace(parameters="x", aor="c"), good._replace(aor="d")]
        location.load([*rows[:3], rows[3]._replace(expires_at=NOW)], NOW)
        self.assertEqual(location.aors(), [AOR])

    def test_all_or_nothing(self) -> None:
        good = BindingRow(AOR, "sip:a@h", "", None, NOW + 1, "c", 1, "", "")
        self.journal.save(AOR, [good])
        bad = good._replace(uri="\udc80")
        self.assertRaises(UnicodeError, self.journal.save, AOR, [good._replace(cseq=2), bad])
        self.assertEqual(list(self.journal.load()), [good])
