"""The seams of the house: what can be replaced, by another overlay algorithm, another link, or a fake in a test.

Where a method answers a Deferred the caller may await or cancel it; it fails, and does not raise, unless its text
says so.  Methods named for something that happened (`link_opened`, `message_received`) are told, not asked: they
answer nothing and must not raise.  What `twisted.plugin` finds are *factories*; each node builds its own instance
from them and lends it a host interface, never the node itself.  A host's attributes are to be read each time that
they are needed: the configuration, and the certificate behind a signer, change while a node runs.
"""

from __future__ import annotations

from ..security.identity import SignedBy as SignedBy
from ..security.interfaces import ISigner as ISigner
from ..security.interfaces import IVerifier as IVerifier
from .links import IApplicationConnection as IApplicationConnection
from .links import IConnectionTable as IConnectionTable
from .links import ILink as ILink
from .links import ILinkHost as ILinkHost
from .links import ILinkOwner as ILinkOwner
from .links import ILinkProtocol as ILinkProtocol
from .links import ILinkProtocolFactory as ILinkProtocolFactory
from .links import INegotiation as INegotiation
from .links import IPathProbe as IPathProbe
from .links import IRelays as IRelays
from .links import Relay as Relay
from .messages import Answer as Answer
from .messages import Answerer as Answerer
from .messages import Extender as Extender
from .messages import IMessaging as IMessaging
from .messages import Reply as Reply
from .messages import Request as Request
from .topology import ITopologyFactory as ITopologyFactory
from .topology import ITopologyHost as ITopologyHost
from .topology import ITopologyPlugin as ITopologyPlugin
from .usages import FetchedValue as FetchedValue
from .usages import IAccessPolicy as IAccessPolicy
from .usages import IOverlay as IOverlay
from .usages import IUsage as IUsage
from .usages import IUsageFactory as IUsageFactory
from .usages import Stored as Stored
