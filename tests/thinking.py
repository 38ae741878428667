"""Which modules only think, and which tests cover each of their branches; `make coverage` runs this file.

Laws: the list of modules stands here and nowhere else; what is not covered fails the run and is printed with its line.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent

MODULES = (
    "p2pmirror/cli/text.py",
    "p2pmirror/config/quantities.py",
    "p2pmirror/config/registries.py",
    "p2pmirror/front/blobs.py",
    "p2pmirror/front/errors.py",
    "p2pmirror/front/query.py",
    "p2pmirror/front/slots.py",
    "p2pmirror/front/tags.py",
    "p2pmirror/hostconfig/addresses.py",
    "p2pmirror/hostconfig/containerd.py",
    "p2pmirror/hostconfig/daemon.py",
    "p2pmirror/hostconfig/doctor/finding.py",
    "p2pmirror/hostconfig/doctor/hosts.py",
    "p2pmirror/hostconfig/doctor/node.py",
    "p2pmirror/hostconfig/hosts.py",
    "p2pmirror/hostconfig/k3s.py",
    "p2pmirror/hostconfig/kind.py",
    "p2pmirror/hostconfig/marks.py",
    "p2pmirror/hostconfig/names.py",
    "p2pmirror/hostconfig/notes.py",
    "p2pmirror/hostconfig/outline.py",
    "p2pmirror/hostconfig/talos.py",
    "p2pmirror/hostconfig/targets.py",
    "p2pmirror/hostconfig/writing.py",
    "p2pmirror/kubernetes/names.py",
    "p2pmirror/kubernetes/objects.py",
    "p2pmirror/oci/descriptor.py",
    "p2pmirror/oci/digest.py",
    "p2pmirror/oci/errors.py",
    "p2pmirror/oci/filters.py",
    "p2pmirror/oci/manifest.py",
    "p2pmirror/oci/mediatype.py",
    "p2pmirror/oci/paths.py",
    "p2pmirror/oci/reference.py",
    "p2pmirror/oci/traversal.py",
    "p2pmirror/peers/piecemap.py",
    "p2pmirror/peers/scores.py",
    "p2pmirror/peers/signing.py",
    "p2pmirror/resolve/delivery.py",
    "p2pmirror/resolve/giving.py",
    "p2pmirror/resolve/picking.py",
    "p2pmirror/resolve/plan.py",
    "p2pmirror/resolve/refusals.py",
    "p2pmirror/resolve/spreading.py",
    "p2pmirror/resolve/want.py",
    "p2pmirror/routing/bootstrap/endpoints.py",
    "p2pmirror/routing/bootstrap/places.py",
    "p2pmirror/routing/dht/codec.py",
    "p2pmirror/routing/dht/lookup.py",
    "p2pmirror/routing/dht/members.py",
    "p2pmirror/routing/dht/messages.py",
    "p2pmirror/routing/dht/placement.py",
    "p2pmirror/routing/dht/records.py",
    "p2pmirror/routing/dht/seal.py",
    "p2pmirror/routing/dht/table.py",
    "p2pmirror/routing/dht/view.py",
    "p2pmirror/routing/leases.py",
    "p2pmirror/store/cache/eviction.py",
    "p2pmirror/store/cache/pins.py",
    "p2pmirror/store/cache/progress.py",
    "p2pmirror/store/cache/records.py",
    "p2pmirror/store/cache/shelf.py",
    "p2pmirror/store/containerd/framing.py",
    "p2pmirror/store/containerd/status.py",
    "p2pmirror/store/containerd/walk.py",
    "p2pmirror/store/ocilayout/index.py",
    "p2pmirror/store/survey.py",
    "p2pmirror/upstream/addresses.py",
    "p2pmirror/upstream/challenge.py",
    "p2pmirror/upstream/credentials/dockerconfig.py",
    "p2pmirror/upstream/credentials/login.py",
    "p2pmirror/upstream/credentials/setting.py",
    "p2pmirror/upstream/governor.py",
    "p2pmirror/upstream/hints.py",
    "p2pmirror/upstream/links.py",
    "p2pmirror/upstream/options.py",
    "p2pmirror/upstream/registries.py",
    "p2pmirror/upstream/urls.py",
    "p2pmirror/wire/address.py",
    "p2pmirror/wire/binding.py",
    "p2pmirror/wire/http_head.py",
    "p2pmirror/wire/http_pool.py",
    "p2pmirror/wire/identity.py",
    "p2pmirror/wire/keyring.py",
    "p2pmirror/wire/pacing.py",
    "p2pmirror/wire/peer_auth.py",
    "p2pmirror/wire/ranges.py",
)
"""Relative to the checkout."""

TESTS = (
    "tests/cli/test_configure.py",
    "tests/cli/test_text.py",
    "tests/config/test_load.py",
    "tests/config/test_quantities.py",
    "tests/config/test_registries.py",
    "tests/front",
    "tests/hostconfig",
    "tests/hostile/test_readers.py",
    "tests/kubernetes_api/test_endpoints.py",
    "tests/kubernetes_api/test_names.py",
    "tests/oci",
    "tests/peers/test_piecemap.py",
    "tests/peers/test_scores.py",
    "tests/peers/test_signing.py",
    "tests/resolve/test_delivery.py",
    "tests/resolve/test_giving.py",
    "tests/resolve/test_picking.py",
    "tests/resolve/test_plan.py",
    "tests/resolve/test_refusals.py",
    "tests/resolve/test_spreading.py",
    "tests/routing/test_codec.py",
    "tests/routing/test_leases.py",
    "tests/routing/test_lookup.py",
    "tests/routing/test_members.py",
    "tests/routing/test_placement.py",
    "tests/routing/test_places.py",
    "tests/routing/test_records.py",
    "tests/routing/test_seal.py",
    "tests/routing/test_table.py",
    "tests/routing/test_view.py",
    "tests/store/test_ocilayout.py",
    "tests/store/test_survey.py",
    "tests/store_cache/test_eviction.py",
    "tests/store_cache/test_progress.py",
    "tests/store_cache/test_records.py",
    "tests/store_cache/test_shelf.py",
    "tests/store_containerd/test_status.py",
    "tests/store_containerd/test_walk.py",
    "tests/upstream/test_dockerconfig.py",
    "tests/upstream/test_governor.py",
    "tests/upstream/test_thinking.py",
    "tests/wire/test_address.py",
    "tests/wire/test_http_client.py",
    "tests/wire/test_http_pool.py",
    "tests/wire/test_http_ranges.py",
    "tests/wire/test_http_server.py",
    "tests/wire/test_keyring.py",
    "tests/wire/test_pacing.py",
    "tests/wire/test_peer_auth.py",
)
"""Those that need neither a cluster nor a real part: together they take a minute."""

SLOW = "crash_at_every_step or version_grows or no_head_breaks_the_server or cancelled"
"""What of them takes long and is held by `make test`: here it would show no branch more."""


def main() -> int:
    """Run the tests with coverage; fail when a test does, or a branch was not taken."""
    with tempfile.TemporaryDirectory() as directory:
        environment = {**os.environ, "COVERAGE_FILE": str(Path(directory) / "coverage")}

        def run(*command: str) -> int:
            return subprocess.run([sys.executable, "-m", *command], cwd=ROOT, env=environment, check=False).returncode

        if code := run("pytest", "-q", "--cov", "--cov-branch", "--cov-report=", f"-k=not ({SLOW})", *TESTS):
            return code
        return run(
            "coverage",
            "report",
            "--show-missing",
            "--skip-covered",
            "--fail-under=100",
            f"--include={','.join(MODULES)}",
        )


if __name__ == "__main__":
    sys.exit(main())
