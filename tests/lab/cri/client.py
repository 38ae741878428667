"""Asks containerd's image service what a kubelet asks it: pull, remove, list. Speaks through the agent's own client."""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc  # type: ignore[import-untyped]
import trio

from p2pmirror.errors import Unreachable
from p2pmirror.store.containerd.grpc import RpcError, open_channel, unix_dial

SERVICE = "/runtime.v1.ImageService"
PULL_S = 120.0  # as long as the lab's commands
CALL_S = 15.0
CALLS_MAX = 16  # more nodes than a lab has; each call has a loop of its own

# Calls are plain functions, like all of the lab, and may come from a thread that runs trio already.
_threads = ThreadPoolExecutor(CALLS_MAX, thread_name_prefix="lab-cri")


class ImageService:
    """CRI's image service on a unix socket; each call connects anew."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    def pull(self, name: str, secret: tuple[str, str] | None = None) -> str:
        """PullImage, with a pull secret (name, password) that names no server, as a kubelet sends it.

        Returns the image's id (the config's digest). Raises RpcError, Unreachable, trio.TooSlowError.
        """
        messages = _messages()
        request = messages.PullImageRequest(image=messages.ImageSpec(image=name))
        if secret is not None:
            request.auth.username, request.auth.password = secret
        return str(self._call("PullImage", request, messages.PullImageResponse, PULL_S).image_ref)

    def remove(self, name: str) -> None:
        """RemoveImage: the image under all of its names. Raises as `pull` does."""
        messages = _messages()
        request = messages.RemoveImageRequest(image=messages.ImageSpec(image=name))
        self._call("RemoveImage", request, messages.RemoveImageResponse, CALL_S)

    def tags(self) -> set[str]:
        """ListImages: the names by tag of all images. Raises as `pull` does."""
        messages = _messages()
        answer = self._call("ListImages", messages.ListImagesRequest(), messages.ListImagesResponse, CALL_S)
        return {tag for image in answer.images for tag in image.repo_tags}

    def answers(self) -> bool:
        """Whether the service answers."""
        try:
            self.tags()
        except (RpcError, Unreachable):
            return False
        return True

    def _call(self, method: str, request: Any, answer: Any, timeout_s: float) -> Any:
        async def call() -> Any:
            with trio.fail_after(timeout_s):
                async with open_channel(unix_dial(self._socket)) as channel:
                    return await channel.unary(f"{SERVICE}/{method}", request, answer)

        return _threads.submit(trio.run, call).result()


@functools.cache
def _messages() -> ModuleType:
    """Return the messages of cri.proto, compiled when first needed (grpcio-tools): no generated file is kept."""
    messages: ModuleType = grpc.protos("tests/lab/cri/cri.proto")
    return messages
