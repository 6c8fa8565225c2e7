"""The group coordinator as a state machine, without input, output or clock (see group.py)."""

from octopus.broker.groups.group import Group
from octopus.broker.groups.messages import Join, Joined, Member, Peer, Protocol, Reply, State, Synced

__all__ = ["Group", "Join", "Joined", "Member", "Peer", "Protocol", "Reply", "State", "Synced"]
