"""The node's id: drawn at its first start, kept in `data_dir` from then on."""

from pathlib import Path
from random import Random
from typing import Final

from p2pmirror.config.model import BadSetting
from p2pmirror.errors import MirrorError, NotHere, Unreachable
from p2pmirror.store.files import Files
from p2pmirror.wire.identity import NODE_ID_BYTES, NodeId

NODE_ID_FILE: Final = "node-id"


async def load_node_id(data_dir: Path | None, files: Files, random: Random) -> NodeId:
    """Return the id kept in `data_dir`, drawn and kept there at the first start; a new one without a directory.

    Raises `BadSetting` when the directory cannot be used, or the file in it is no id.
    """
    fresh = NodeId(random.randbytes(NODE_ID_BYTES))
    if data_dir is None:
        return fresh
    path = data_dir / NODE_ID_FILE
    try:
        kept = await files.read_whole(path, NODE_ID_BYTES)
    except NotHere:
        await _keep(path, fresh, files)
        return fresh
    except Unreachable as error:
        raise BadSetting(
            "data_dir", str(data_dir), f"a directory with a {NODE_ID_FILE} of {NODE_ID_BYTES} bytes ({error})"
        ) from None
    if len(kept) != NODE_ID_BYTES:
        raise BadSetting(
            "data_dir", str(data_dir), f"a directory whose {NODE_ID_FILE} has {NODE_ID_BYTES} bytes, not {len(kept)}"
        )
    return NodeId(kept)


async def _keep(path: Path, node_id: NodeId, files: Files) -> None:
    try:
        await files.make_directory(path.parent)
        async with await files.create(path.with_name(f".{path.name}.new")) as writer:
            await writer.append(node_id)
            await writer.commit(path)
    except MirrorError as error:
        raise BadSetting("data_dir", str(path.parent), f"a directory that can be written to ({error})") from None
