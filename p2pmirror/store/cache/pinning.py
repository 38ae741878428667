"""The pins of a cache, on the disk and followed to all that they lead to."""

from p2pmirror.oci import Descriptor
from p2pmirror.store.cache.directory import CacheDirectory
from p2pmirror.store.cache.documents import Documents
from p2pmirror.store.cache.eviction import Kept
from p2pmirror.store.cache.pins import Pins, readable
from p2pmirror.store.cache.shelf import Shelf


class Pinning:
    """The pins of one cache; they are files in its directory, so that others see them."""

    def __init__(self, shelf: Shelf, directory: CacheDirectory, documents: Documents) -> None:
        """Know of none before a walk."""
        self._shelf = shelf
        self._directory = directory
        self._documents = documents
        self._pins = Pins()

    @property
    def texts(self) -> frozenset[str]:
        """The pins that there are."""
        return self._pins.texts

    def has(self, kept: Kept) -> bool:
        """Say whether a blob is pinned."""
        return self._pins.has(kept)

    async def pin(self, pin: str) -> None:
        """Pin something. Raises `StoreFull`."""
        await self._directory.write_pin(pin)
        await self.take_in(self.texts | {pin})

    async def unpin(self, pin: str) -> None:
        """Take a pin away. Raises `StoreFull`."""
        await self._directory.remove_pin(pin)
        await self.take_in(self.texts - {pin})

    async def refresh(self) -> None:
        """Follow the pins again, since a manifest or a tag has come."""
        if self.texts:
            await self.take_in(self.texts)

    async def take_in(self, texts: frozenset[str]) -> None:
        """Take these for the pins, and find what they lead to."""
        pins = Pins(readable(texts))
        held = [entry for digest in pins.digests if (entry := self._shelf.get(digest)) is not None]
        roots = [Descriptor(each.media_type, each.digest, each.size) for each in held if each.media_type is not None]
        roots += [tag.descriptor for tag in self._shelf.tags if pins.names_tag(tag.info.name)]
        survey = await self._documents.survey([(root, ()) for root in roots])
        self._pins = Pins(pins.texts, frozenset([*pins.digests, *survey.found()]))
