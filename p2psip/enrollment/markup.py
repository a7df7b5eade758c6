"""The web page as HTML.  What goes into it is escaped by `twisted.web.template`; there is no script in it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

import segno
from twisted.web.template import Tag, XMLString, tags

from .settings import PhoneSettings

TITLE: Final = "Your phones"


def page(title: str, *content: Any, user: str = "", form_token: str = "") -> Tag:
    """A whole page; with `user` one that can be signed out from."""
    signed_in = [tags.span(f"Signed in as {user}"), _form("/account/sign-out", form_token, tags.button("Sign out"))]
    return tags.html(
        tags.head(
            tags.meta(charset="utf-8"),
            tags.meta(name="viewport", content="width=device-width, initial-scale=1"),
            tags.title(title),
            tags.link(rel="stylesheet", href="/account/style.css"),
        ),
        tags.body(
            Tag("header")(tags.strong(TITLE), *(signed_in if user else ())), Tag("main")(tags.h1(title), *content)
        ),
        lang="en",
    )


def _form(action: str, form_token: str, *content: Any) -> Tag:
    hidden = tags.input(type="hidden", name="form", value=form_token)
    return tags.form(hidden, *content, action=action, method="post")


def _field(name: str, label: str, error: bool = False, **attributes: str) -> list[Tag]:
    about = {"aria-invalid": "true", "aria-describedby": "error"} if error else {}
    return [tags.label(label, **{"for": name}), tags.input(id=name, name=name, **attributes, **about)]


def _error(text: str) -> list[Tag]:
    return [tags.p(text, id="error", role="alert", **{"class": "error"})] if text else []


def sign_in(form_token: str, error: str = "", name: str = "") -> Tag:
    """The form to sign in with."""
    return page(
        "Sign in",
        *_error(error),
        _form(
            "/account/sign-in",
            form_token,
            *_field("name", "User name", bool(error), value=name, autocomplete="username", autocapitalize="none",
                    required="required", maxlength="64"),
            *_field("password", "Password", bool(error), type="password", autocomplete="current-password",
                    required="required", maxlength="1024"),
            tags.button("Sign in", **{"class": "main"}),
        ),
        tags.p("Not that of a phone, but your own: of the directory, or of your account.", **{"class": "hint"}),
    )  # fmt: skip


def devices(user: str, form_token: str, found: Sequence[tuple[str, float]], error: str = "") -> Tag:
    """The devices of a user, and the form for another."""
    rows = [
        tags.tr(
            tags.th(name, scope="row"),
            tags.td(f"{datetime.fromtimestamp(made, UTC):%Y-%m-%d}"),
            tags.td(tags.a(f"Revoke {name}", href=f"/account/revoke?device={quote(name)}")),
        )
        for name, made in found
    ]
    head = tags.thead(tags.tr(*(tags.th(text, scope="col") for text in ("Phone", "Since", "Do"))))
    table = tags.table(head, tags.tbody(*rows)) if rows else tags.p("There is none yet.")
    return page(
        TITLE,
        *_error(error),
        table,
        tags.h2("Add a phone"),
        _form(
            "/account/devices",
            form_token,
            *_field("name", "Its name (if you like, such as desk)", bool(error), maxlength="64", autocomplete="off",
                    autocapitalize="none"),
            tags.button("Add", **{"class": "main"}),
        ),
        user=user,
        form_token=form_token,
    )  # fmt: skip


def revoke(user: str, form_token: str, device: str) -> Tag:
    """Asks whether it is meant."""
    return page(
        f"Revoke {device}?",
        tags.p("Its password will be worth nothing any more: the phone is signed off within about a minute."),
        _form(
            "/account/revoke",
            form_token,
            tags.input(type="hidden", name="device", value=device),
            tags.button("Revoke it", **{"class": "main"}),
            " ",
            tags.a("Keep it", href="/account", **{"class": "button"}),
        ),
        user=user,
        form_token=form_token,
    )


def new_device(user: str, form_token: str, settings: PhoneSettings) -> Tag:
    """A new device's password and settings, shown once."""
    server, own = settings.servers[0], settings
    rows = [tags.tr(tags.th(name, scope="row"), tags.td(tags.code(value))) for name, value in settings.lines()]
    return page(
        f"Settings of {settings.device}",
        tags.p("The password is shown this once. Lose it, and you make another phone here."),
        tags.table(tags.tbody(*rows)),
        tags.h2("As a QR code"),
        tags.p("It holds the text above, to be copied in the phone.", **{"class": "hint"}),
        tags.div(_qr(settings.text()), **{"class": "qr"}),
        tags.h2("Linphone"),
        tags.p(f"Use SIP account: username {own.user}, the password, domain {server}, transport UDP."),
        tags.h2("Desk phones (Snom, Yealink, Grandstream)"),
        tags.p(
            f"Account, user name and authentication name: {own.user}. Registrar or SIP server: {server}"
            + (f"; the second server: {settings.servers[1]}." if len(settings.servers) > 1 else ".")
        ),
        tags.h2("baresip"),
        tags.p("This line in the file accounts:"),
        tags.pre(f"<sip:{own.user}@{server}>;auth_user={own.user};auth_pass={own.password};regint=3600"),
        tags.p(tags.a("Done", href="/account", **{"class": "button"})),
        user=user,
        form_token=form_token,
    )


def problem(title: str, text: str) -> Tag:
    """Something went wrong."""
    return page(title, tags.p(text, role="alert"), tags.p(tags.a("Go on", href="/account")))


def _qr(text: str) -> Any:
    out = io.BytesIO()
    segno.make(text, error="m").save(
        out, kind="svg", xmldecl=False, svgns=False, nl=False, omitsize=True, title="The settings as a QR code"
    )
    return XMLString(out.getvalue().decode()).load()

