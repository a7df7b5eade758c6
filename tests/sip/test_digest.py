"""Digest authentication: the RFCs' own examples, nonces, and no second use of anything."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from p2psip.sip.digest import (
    DigestChallenge,
    DigestCredentials,
    NonceMint,
    NonceVerdict,
    authorization_for,
    choose_challenge,
    digest_response,
    ha1,
    parse_digest,
    parse_nonce,
    same_uri,
    verify_response,
)
from p2psip.sip.errors import SIPParseError

NODE_ID = bytes(range(16))
NOW = 1_800_000_000.25


class RFCExampleTests(SynchronousTestCase):
    """RFC 7616 §3.9.1: Mufasa."""

    text = (
        'Digest username="Mufasa", realm="http-auth@example.org", uri="/dir/index.html", algorithm={algorithm},'
        ' nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", nc=00000001,'
        ' cnonce="f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ", qop=auth, response="{response}",'
        ' opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"'
    )
    responses = (
        ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
        ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
    )

    def test_verify(self) -> None:
        for algorithm, response in self.responses:
            proof = DigestCredentials.parse(self.text.format(algorithm=algorithm, response=response))
            secret = ha1(algorithm, "Mufasa", "http-auth@example.org", "Circle of Life")
            self.assertTrue(verify_response(proof, "GET", secret))
            self.assertFalse(verify_response(proof, "POST", secret))
            self.assertFalse(verify_response(proof, "GET", ha1(algorithm, "Mufasa", "http-auth@example.org", "x")))
            self.assertEqual(DigestCredentials.parse(str(proof)), proof)

    def test_rfc2069(self) -> None:
        """The response without qop is computed as ever (RFC 2617 §3.5 with qop left out), but never accepted."""
        secret = ha1("MD5", "Mufasa", "testrealm@host.com", "Circle Of Life")
        nonce = "dcd98b7102dd2f0e8b11d0f600bfb0c093"
        response = digest_response("MD5", secret, "GET", "/dir/index.html", nonce, None, None, None)
        self.assertEqual(response, "670fd8c2df070c60b045671b8b24ff02")
        proof = DigestCredentials("Mufasa", "testrealm@host.com", nonce, "/dir/index.html", response)
        self.assertFalse(verify_response(proof, "GET", secret))

    def test_client(self) -> None:
        for algorithm, response in self.responses:
            challenge = DigestChallenge(
                "http-auth@example.org", "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", algorithm
            )
            cnonce = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ"
            proof = authorization_for(challenge, "GET", "/dir/index.html", "Mufasa", "Circle of Life", cnonce)
            self.assertEqual((proof.response, proof.nc), (response, "00000001"))

    def test_unicode(self) -> None:
        proof = authorization_for(DigestChallenge("r", "n", "SHA-256"), "GET", "/", "Jäsøn", "Grøß", "c", 0x1F)
        self.assertEqual(proof.nc, "0000001f")
        self.assertTrue(verify_response(proof, "GET", ha1("SHA-256", "Jäsøn", "r", "Grøß")))


class ValueTests(SynchronousTestCase):
    def test_challenge(self) -> None:
        challenge = DigestChallenge('a "b"', "n", "SHA-256", ("auth", "auth-int"), "o", True)
        self.assertEqual(DigestChallenge.parse(str(challenge)), challenge)
        old = DigestChallenge.parse('DIGEST nonce="x" , realm="r"')
        self.assertEqual((old.algorithm, old.qop, old.stale), ("MD5", (), False))
        for text in (
            "Digest",
            "Digest ",
            'Digest realm="r", nonce="n",',
            "Basic realm=r",
            'Digest realm="r"',
            'Digest nonce="n"',
        ):
            self.assertRaises(SIPParseError, DigestChallenge.parse, text)

    def test_choice(self) -> None:
        """The first that is understood (RFC 8760 §2.4)."""
        values = [
            "Basic realm=r",
            'Digest realm="r", nonce="1", algorithm=SHA-512-256, qop="auth"',
            'Digest realm="r", nonce="2", algorithm=SHA-256, qop="auth-int"',
            'Digest realm="r", nonce="3", algorithm=sha-256, qop="auth-int, auth"',
            'Digest realm="r", nonce="4", algorithm=MD5, qop="auth"',
        ]
        chosen = choose_challenge(values)
        assert chosen is not None
        self.assertEqual(chosen.nonce, "3")
        self.assertIsNone(choose_challenge(values[:3]))

    def test_bad_credentials(self) -> None:
        good = (
            'Digest username="u", realm="r", nonce="n", uri="sip:a", response="aB", qop=auth, nc=00000001, cnonce="c"'
        )
        self.assertEqual(DigestCredentials.parse(good).response, "ab")
        for old, new in (
            ("Digest", "Basic"),
            ('username="u", ', ""), ('realm="r", ', ""), ('nonce="n", ', ""),
            ('uri="sip:a", ', ""),
            ('response="aB", ', ""), ('"aB"', '"xyz"'), ("nc=00000001, ", ""), (', cnonce="c"', ""), ("00000001", "1"),
            ("00000001", "0000000g"), ('"c"', '"c'), ('"u"', '"u"x'), ("qop=auth", "qop"), ("qop=auth", "uri=b"),
        ):  # fmt: skip
            self.assertIn(old, good)
            self.assertRaises(SIPParseError, DigestCredentials.parse, good.replace(old, new, 1))
        many = ", ".join(f"p{number}=1" for number in range(40))
        self.assertRaises(SIPParseError, DigestCredentials.parse, f"{good}, {many}")

    def test_unknown_algorithm(self) -> None:
        proof = DigestCredentials("u", "r", "n", "u", "ab", "SHA-512", "auth", "00000001", "c")
        self.assertFalse(verify_response(proof, "GET", "00"))
        self.assertRaises(ValueError, ha1, "SHA-512", "u", "r", "p")

    @settings(max_examples=200, deadline=None)
    @given(st.text(max_size=80))
    def test_fuzz(self, text: str) -> None:
        for parse in (parse_digest, DigestChallenge.parse, DigestCredentials.parse):
            try:
                parse(f"Digest {text}")
            except SIPParseError:
                pass

    def test_same_uri(self) -> None:
        self.assertTrue(same_uri("sip:a@Example.org", "sip:a@example.org"))
        self.assertTrue(same_uri("urn:x", "urn:x"))
        for one, other in (("sip:a", "sip:b"), ("", "sip:b"), ("sip:a@b", "sips:a@b")):
            self.assertFalse(same_uri(one, other))


class NonceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.mint = NonceMint(NODE_ID, b"k" * 16, lifetime=100.0, size=3)

    def test_origin(self) -> None:
        """A nonce says whose it is and how old."""
        self.assertEqual(parse_nonce(self.mint.make(NOW)), (NODE_ID, NOW))
        long_id = bytes(range(20))
        self.assertEqual(parse_nonce(NonceMint(long_id, b"k" * 16).make(NOW)), (long_id, NOW))
        for text in ("", "a.b.c.d", self.mint.make(NOW)[:-1], self.mint.make(NOW) + "0", self.mint.make(NOW).upper()):
            self.assertRaises(SIPParseError, parse_nonce, text)

    def test_no_two_alike(self) -> None:
        self.assertEqual(len({self.mint.make(NOW) for _ in range(100)}), 100)

    def test_good(self) -> None:
        nonce = self.mint.make(NOW)
        self.assertIs(self.mint.judge(nonce, "00000001", NOW), NonceVerdict.GOOD)
        self.assertIs(self.mint.judge(nonce, "00000001", NOW + 100), NonceVerdict.GOOD)

    def test_age(self) -> None:
        nonce = self.mint.make(NOW)
        self.assertIs(self.mint.judge(nonce, "00000001", NOW + 100.1), NonceVerdict.STALE)
        self.assertIs(self.mint.judge(nonce, "00000001", NOW - 61), NonceVerdict.STALE)

    def test_foreign(self) -> None:
        nonce = self.mint.make(NOW)
        later = f"{int((NOW + 50) * 1000):x}.{nonce.partition('.')[2]}"
        others = NonceMint(NODE_ID, b"x" * 16).make(NOW)
        for text in ("", ".", "x", nonce[:-1] + "x", later, others, nonce * 10, "\udc80." + "ü" * 32):
            self.assertIs(self.mint.judge(text, "00000001", NOW), NonceVerdict.FOREIGN)
        self.assertRaises(ValueError, NonceMint, NODE_ID, b"short")

    def test_nonce_count(self) -> None:
        nonce = self.mint.make(NOW)
        self.assertTrue(self.mint.use(nonce, "0000000a"))
        self.assertFalse(self.mint.use(nonce, "0000000a"))
        for nc, verdict in (
            ("0000000a", NonceVerdict.STALE),
            ("00000009", NonceVerdict.STALE),
            (None, NonceVerdict.STALE),
            ("0000000b", NonceVerdict.GOOD),
        ):
            self.assertIs(self.mint.judge(nonce, nc, NOW), verdict)

    def test_bounded_without_replay(self) -> None:
        """A nonce that the table gave up is stale, not new; later ones are good."""
        nonces = [self.mint.make(NOW + number) for number in range(4)]
        for nonce in nonces:
            self.mint.use(nonce, "00000001")
        self.assertEqual(
            [self.mint.judge(nonce, "00000002", NOW + 5) for nonce in nonces],
            [NonceVerdict.STALE, NonceVerdict.GOOD, NonceVerdict.GOOD, NonceVerdict.GOOD],
        )
        self.assertIs(self.mint.judge(self.mint.make(NOW + 5), "00000001", NOW + 5), NonceVerdict.GOOD)
