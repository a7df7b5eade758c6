"""Telephone numbers: what URIs and dialled digits stand for (RFC 3966, RFC 5031)."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from p2psip.sip.errors import SIPParseError
from p2psip.sip.numbers import DialPlan, bare, dial_plan_fault
from p2psip.sip.uri import parse_uri

BERLIN = DialPlan("49", "30", contexts=("example.org",))
AMERICA = DialPlan("1", "212", "011", "1", contexts=("example.org",))
ITALY = DialPlan("39", national_prefix="")
NOWHERE = DialPlan()

FORMS = ("tel:{}", "sip:{}@a", "sip:{}@a;user=phone")

digits = st.text("0123456789", min_size=1, max_size=14)


def number_of(text: str, plan: DialPlan = BERLIN) -> str | None:
    return plan.number_of(parse_uri(text))


class NumberTests(SynchronousTestCase):
    def expect(self, plan: DialPlan, expected: dict[str, str | None]) -> None:
        for text, number in expected.items():
            self.assertEqual(number_of(text, plan), number, text)

    def test_global(self) -> None:
        """However they are separated, with any plan (RFC 3966 §5.1.4)."""
        for plan in BERLIN, AMERICA, NOWHERE:
            self.expect(plan, {
                "tel:+49-30-1234": "+49301234",
                "tel:+1-201-555-0123": "+12015550123",
                "tel:+358-(0)": "+3580",
                "tel:+49.30.1234;phone-context=+1": "+49301234",
                "sip:+49-30-1234@example.org;user=phone": "+49301234",
                "sips:%2B49301234@192.0.2.1": "+49301234",
                "sip:+49301234;npdi@example.org;user=PHONE": "+49301234",
            })  # fmt: skip

    def test_local(self) -> None:
        """Only in a context that is understood: this country's, this area's, the overlay's (RFC 3966 §5.1.5)."""
        self.expect(BERLIN, {
            "tel:030-1234;phone-context=+49": "+49301234",
            "tel:123456;phone-context=+49-30": "+4930123456",
            "tel:123456;phone-context=Example.org.": "+4930123456",
            "tel:030-1234;phone-context=+1": None,
            "tel:030-1234;phone-context=other.example": None,
            "tel:7042;phone-context=example.org": None,
            "sip:030-1234;phone-context=+49@example.org;user=phone": "+49301234",
            "sip:030-1234;phone-context=+43@example.org;user=phone": None,
        })  # fmt: skip

    def test_dialled(self) -> None:
        self.expect(BERLIN, {
            "sip:0049301234@example.org": "+49301234",
            "sip:0301234@example.org": "+49301234",
            "sip:0301234@example.org;user=phone": "+49301234",
            "sip:123456@example.org": "+4930123456",
            "sip:030-12.34(5)@example.org": "+493012345",
            "tel:0301234": "+49301234",
            "sip:12345@example.org": None,
            "sip:00049301234@example.org": None,
            "sip:00@example.org": None,
        })  # fmt: skip
        self.expect(AMERICA, {
            "sip:12015550123@example.org": "+12015550123",
            "sip:5550123@example.org": "+12125550123",
            "sip:01149301234@example.org": "+49301234",
        })  # fmt: skip
        self.expect(ITALY, {"sip:0612345@example.org": "+390612345", "sip:101@example.org": None})
        self.expect(NOWHERE, {
            "sip:0049301234@example.org": "+49301234",
            "sip:0301234@example.org": None,
            "sip:301234@example.org": None,
        })  # fmt: skip

    def test_no_number(self) -> None:
        for text in (
            "sip:alice@example.org",
            "sip:example.org",
            "sip:alice@example.org;user=phone",
            "sip:+49alice@example.org",
            "sip:1234567a@example.org",
            "sip:--..@example.org",
            "sip:123456;x=y@example.org",
            "sip:+@example.org",
            "sip:+0301234567@example.org",
            "sip:%D9%A1%D9%A2%D9%A3%D9%A4%D9%A5%D9%A6%D9%A7@example.org",
            "tel:*21#",
            "tel:abc123456",
            f"tel:+{'1' * 16}",
            f"sip:{'1' * 5000}@example.org",
            "urn:service:counseling",
            "mailto:030-1234@example.org",
        ):
            self.assertIsNone(number_of(text), text)

    def test_extension_and_subaddress(self) -> None:
        """They are part of the number, and other parameters are not (RFC 3966 §4, §5.2, §5.3)."""
        self.expect(BERLIN, {
            "tel:+49-30-1234;ext=1.2": "+49301234;ext=12",
            "tel:+49301234;isub=abc%41;foo=bar": "+49301234;isub=abc%41",
            "tel:+49301234;ext=x": "+49301234",
            "tel:+49301234;isub=a:b": "+49301234",
            "sip:+49301234;ext=12@example.org;user=phone": "+49301234;ext=12",
        })  # fmt: skip
        self.assertEqual(bare("+49301234;ext=12"), "+49301234")

    def test_emergency(self) -> None:
        """Dialled, in any country's context, and as a service of any kind (RFC 5031 §4.2)."""
        for plan in BERLIN, NOWHERE:
            self.expect(plan, {
                "sip:112@example.org": "112",
                "sip:911@example.org;user=phone": "911",
                "tel:911;phone-context=+1": "911",
                "tel:112": "112",
                "tel:112;phone-context=other.example": None,
                "urn:service:sos": "112",
                "URN:Service:SOS.police": "112",
                "urn:service:sosx": None,
                "sip:110@example.org": None,
            })  # fmt: skip
            self.assertTrue(plan.is_emergency("112"))
            self.assertFalse(plan.is_emergency("+49112"))
        self.expect(replace(BERLIN, emergency_numbers=("110",)), {"sip:110@a": "110", "urn:service:sos": "110"})
        self.expect(replace(BERLIN, emergency_numbers=()), {"sip:112@a": None, "urn:service:sos": None})

    @given(st.integers(1, 10**14))
    def test_every_way_to_the_same_number(self, national: int) -> None:
        for prefix, plan in (("0049", BERLIN), ("01149", AMERICA)):
            dialled = f"{prefix}{national}"
            expected = f"+49{national}" if len(dialled) >= 6 and len(f"49{national}") <= 15 else None
            self.assertEqual(plan.dialled(dialled), expected)
            self.assertEqual(plan.dialled("-".join(dialled)), expected)
        if expected:
            self.assertEqual(BERLIN.dialled(f"0{national}") or expected, expected)
            self.assertEqual(number_of(f"tel:{expected}"), expected)
            self.assertEqual(number_of(f"sip:{expected}@example.org", NOWHERE), expected)

    @given(st.text("0123456789+-.()%;=#*aAé", max_size=40), st.sampled_from(FORMS))
    def test_normal_form(self, text: str, form: str) -> None:
        """Whatever is asked, the answer is none or a number that stands for itself."""
        try:
            uri = parse_uri(form.format(text))
        except SIPParseError:
            return
        number = BERLIN.number_of(uri)
        if number is not None:
            self.assertRegex(number, r"(\+[1-9][0-9]{1,14}|112|911)(;(ext|isub)=.+)?\Z")
            self.assertEqual(number_of(f"tel:{number}"), number)

    @given(digits, digits, digits)
    def test_any_plan(self, country: str, area: str, dialled: str) -> None:
        number = DialPlan(country, area).dialled(dialled)
        if number is not None:
            self.assertRegex(number, r"(\+[1-9][0-9]{1,14}|112|911)\Z")


class DialPlanTests(SynchronousTestCase):
    def test_faults(self) -> None:
        for plan in BERLIN, AMERICA, ITALY, NOWHERE:
            self.assertEqual(dial_plan_fault(plan), "")
        for plan, fault in (
            (DialPlan("+49"), "country code '+49'"),
            (DialPlan("0049"), "country code '0049'"),
            (DialPlan("49123"), "country code '49123'"),
            (DialPlan(area_code="30"), "needs a country code"),
            (DialPlan("49", "0 30"), "area code '0 30'"),
            (DialPlan(international_prefix="+"), "international prefix '+'"),
            (DialPlan(national_prefix="x"), "national prefix 'x'"),
            (DialPlan(emergency_numbers=("112", "+112")), "emergency number '+112'"),
            (DialPlan(emergency_numbers=("1",)), "emergency number '1'"),
        ):
            self.assertIn(fault, dial_plan_fault(plan))
