"""Removing an image by hand: its tag, and what nothing else needs."""

from p2pmirror.errors import NotHere
from p2pmirror.oci import Digest, TagName
from p2pmirror.store.cache.documents import Documents
from p2pmirror.store.cache.learning import Learning
from p2pmirror.store.cache.room import Room
from p2pmirror.store.cache.shelf import Entry, Shelf
from p2pmirror.store.cache.tags import CacheTags


class Removal:
    """Removes images from one cache."""

    def __init__(self, shelf: Shelf, documents: Documents, *, learning: Learning, tags: CacheTags, room: Room) -> None:
        """Remove from `shelf`."""
        self._shelf = shelf
        self._documents = documents
        self._learning = learning
        self._tags = tags
        self._room = room

    async def remove_image(self, name: TagName) -> list[Digest]:
        """Remove a tag and what it alone leads to; return what went. Raises `NotHere`, `StoreFull`.

        What another tag leads to stays, and what was fetched for an image of another name.
        """
        tag = self._shelf.tag(name)
        if tag is None:
            raise NotHere(f"the cache has no {name}")
        others = [(each.descriptor, [each.info.name]) for each in self._shelf.tags if each.info.name != name]
        mine = (await self._documents.survey([(tag.descriptor, ())])).found()
        theirs = (await self._documents.survey(others)).found()
        await self._tags.forget(name)
        names = {digest: frozenset(found.names) for digest, found in theirs.items()}
        gone = []
        for entry in [entry for digest in mine if (entry := self._shelf.get(digest)) is not None]:
            if not await self._is_needed(entry, f"{name.registry}/{name.repository}", names.get(entry.digest)):
                gone.append(entry.digest)
        await self._room.remove(gone, "removed")
        return gone

    async def _is_needed(self, entry: Entry, own: str, others: frozenset[str] | None) -> bool:
        """Whether it stays, without the name of what goes where no other tag of that name leads to it."""
        rest = (entry.names - {own}) | (others or frozenset())
        if others is None and not rest:
            return False
        if rest != entry.names:
            await self._learning.rename(entry, rest)
        return True
