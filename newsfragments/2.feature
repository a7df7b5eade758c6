The first release: an overlay (RFC 6940) that carries SIP registrations (RFC 7904). ``twistd -n p2psip --overlay NAME``
founds it, ``p2psip invite`` lets more nodes join, ``p2psip user add`` makes accounts for phones, and any SIP phone that
registers at one node is found from every other. Overlay algorithms, Usages, access control policies and link protocols
are plug-ins; ``docs/examples`` has a complete one.
