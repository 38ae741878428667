"""Documents made by hand: JSON of manifests as build tools write them."""

import json

from p2pmirror.oci import Descriptor, Digest, mediatype


def descriptor(media_type, content=b"", **more):
    """Describe `content`, as JSON would."""
    return {"mediaType": media_type, "digest": str(Digest.of(content)), "size": len(content), **more}


def image(*layers, media_type=mediatype.OCI_MANIFEST, config_content=b"{}", **more):
    """Give an image manifest over these layers' contents."""
    return {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": descriptor(mediatype.OCI_CONFIG, config_content),
        "layers": [descriptor(mediatype.OCI_LAYER_GZIP, layer) for layer in layers],
        **more,
    }


def index(*manifests, media_type=mediatype.OCI_INDEX, **more):
    """Give an index over these descriptors."""
    return {"schemaVersion": 2, "mediaType": media_type, "manifests": list(manifests), **more}


def encoded(document):
    """Write a document down."""
    return json.dumps(document).encode()


def named(data, media_type):
    """Describe bytes, as a value."""
    return Descriptor(media_type, Digest.of(data), len(data))
