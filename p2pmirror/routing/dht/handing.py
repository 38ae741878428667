"""Records as they are handed out, with the age that their claims have by then."""

from p2pmirror.routing.dht.messages import Claim, Found, pack_address
from p2pmirror.routing.dht.records import Record, Records
from p2pmirror.routing.protocol import TagClaim


def found_of(records: Records, record: Record, now: float) -> Found:
    """Return a record, which is held with its source, as a holder hands it out."""
    source = records.source(record.node_id)
    assert source is not None, "a record is kept with its source"
    ttl_s = max(0, int(record.deadline - now))
    claim = None if record.tag is None else Claim.of(aged(record.tag, now - record.said_at))
    return Found(
        record.node_id,
        pack_address(source.router),
        pack_address(source.registry),
        source.zone,
        record.state,
        ttl_s,
        claim,
    )


def aged(tag: TagClaim, by_s: float) -> TagClaim:
    """Return a claim as it is so much later."""
    return TagClaim(tag.digest, tag.media_type, tag.size, tag.age_s + by_s, tag.confirmed)
