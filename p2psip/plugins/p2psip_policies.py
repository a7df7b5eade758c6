"""The access control policies of RFC 6940, for `twisted.plugin` to find."""

from __future__ import annotations

from p2psip.storage.policies import NodeMatch, NodeMultiple, UserMatch, UserNodeMatch

user_match = UserMatch()
node_match = NodeMatch()
user_node_match = UserNodeMatch()
node_multiple = NodeMultiple()
