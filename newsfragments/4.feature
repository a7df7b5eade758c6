Nodes behind NATs are peers like any other: new overlays use ICE (RFC 6940, section 6.5.1), with links over DTLS. Every
peer is a STUN server for the others. ``--no-ice`` founds an overlay for a network without NATs, over TLS or DTLS;
``--link-protocol`` chooses among what an overlay permits. UDP port 6084 has to be open at bootstrap nodes.
``--turn-server`` and ``--turn-secret-file`` offer a TURN server, such as coturn, to the overlay: nodes find it there and
relay through it where nothing else connects them (RFC 6940, section 9).
``--self-signed`` founds an overlay without an authority; others join by its configuration document (section 11.3.1).
``--lan`` lets nodes find each other on the LAN, by DNS-SD.
``p2psip authority bootstrap`` adds and removes bootstrap nodes; a client may be one.
``p2psip probe`` asks a peer what part of the overlay it is responsible for; ``status`` shows the candidate pair of each link.
Messages that are too large for a link over datagrams cross it in fragments (section 6.7).
For authors of plug-ins: a link protocol offers ``negotiate`` in place of ``candidates``, ``connect`` and the two for
application connections; a topology is told ``link_recovered``; a Usage can fetch by Resource-ID (``fetch_at``) and extend
answers (``extend_answers``); an application connection says whether it carries records.
