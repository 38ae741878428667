"""Answers with the held manifests that refer to another: signatures, attestations, SBOMs.

Law: an empty list says that there are none, which only who holds the subject or a referrer may say; else the answer is
404, upon which clients ask the next host or fall back to the referrers tag.

Follows the OCI distribution specification, section "Listing Referrers".
"""

import json
from collections.abc import Iterable

from p2pmirror.front.errors import API_VERSION
from p2pmirror.oci import Descriptor, mediatype
from p2pmirror.wire.http import Response


def answer(descriptors: Iterable[Descriptor], artifact_type: str | None) -> Response:
    """Return an image index of the descriptors, of those with `artifact_type` when that is asked for."""
    headers = {"Content-Type": mediatype.OCI_INDEX, "Docker-Distribution-Api-Version": API_VERSION}
    if artifact_type is not None:
        descriptors = [each for each in descriptors if each.artifact_type == artifact_type]
        headers["OCI-Filters-Applied"] = "artifactType"
    index = {
        "schemaVersion": 2,
        "mediaType": mediatype.OCI_INDEX,
        "manifests": [_written(each) for each in descriptors],
    }
    return Response(200, headers, json.dumps(index).encode())


def _written(descriptor: Descriptor) -> dict[str, object]:
    written: dict[str, object] = {
        "mediaType": descriptor.media_type,
        "digest": str(descriptor.digest),
        "size": descriptor.size,
    }
    if descriptor.artifact_type is not None:
        written["artifactType"] = descriptor.artifact_type
    if descriptor.annotations:
        written["annotations"] = dict(descriptor.annotations)
    return written
