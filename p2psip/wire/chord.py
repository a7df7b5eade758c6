"""What CHORD-RELOAD puts into Update, RouteQuery and Leave (RFC 6940, section 10)."""

from __future__ import annotations

from typing import Annotated

from .codec import Choice, Struct, select
from .codes import ChordLeaveType, ChordUpdateType
from .fields import Int, NodeId, uint32, vec16


class ChordUpdate(Choice):
    """The body of an Update request (RFC 6940, 10.7); `uptime` is in seconds."""

    uptime: uint32
    type: Annotated[int, Int(1, ChordUpdateType)] = select()


class PeerReady(ChordUpdate, case=ChordUpdateType.PEER_READY):
    """The sender may be routed through."""


class Neighbors(ChordUpdate, case=ChordUpdateType.NEIGHBORS):
    """The sender's Neighbor Table, each list ordered from the nearest."""

    predecessors: vec16[NodeId]
    successors: vec16[NodeId]


class Full(ChordUpdate, case=ChordUpdateType.FULL):
    """The sender's whole Routing Table."""

    predecessors: vec16[NodeId]
    successors: vec16[NodeId]
    fingers: vec16[NodeId]


class ChordRouteQueryAns(Struct):
    """The peer a message would be sent to next (RFC 6940, 10.8)."""

    next_peer: NodeId


class ChordLeaveData(Choice):
    """The overlay_specific_data of a Leave request (RFC 6940, 10.9)."""

    type: Annotated[int, Int(1, ChordLeaveType)] = select()


class FromSuccessor(ChordLeaveData, case=ChordLeaveType.FROM_SUCC):
    """The sender is the recipient's successor; these are its own successors."""

    successors: vec16[NodeId]


class FromPredecessor(ChordLeaveData, case=ChordLeaveType.FROM_PRED):
    """The sender is the recipient's predecessor; these are its own predecessors."""

    predecessors: vec16[NodeId]
