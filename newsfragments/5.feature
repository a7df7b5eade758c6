A node is a SIP proxy now, unless ``--sip-mode redirect`` says otherwise: calls go to every phone of the callee at every node
(RFC 3261 section 16, RFC 5393, RFC 5626), callers prove who they are, and no dialog is lost when a node restarts.
SIP over TLS, with a certificate of the overlay or ``--sip-certificate``; other domains by NAPTR and SRV (RFC 3263).
``--gateway`` takes numbers out by a SIP trunk and in again; gateways are found in the overlay, and a second one takes over.
``p2psip forward`` sends calls elsewhere; phones are told GRUUs (RFC 5627), and registrations what they can do (RFC 3840).
``--rtpengine`` relays what phones behind NATs say.
``p2psip directory`` lets users sign in whom an LDAP directory knows; ``--revocation-interval`` is how soon a change holds.
A page at the enrollment server on which users add and revoke phones; ``--web-certificate`` for browsers.
``--accounts`` keeps accounts in PostgreSQL, also for several enrollment servers; ``p2psip user set`` changes numbers and
names, and disables accounts.
