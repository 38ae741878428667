"""Well-formed values of the grammar, drawn without the code under test."""

from hypothesis import strategies as st

HEX = {"sha256": 64, "sha512": 128}

digests = st.sampled_from(sorted(HEX)).flatmap(
    lambda algorithm: st.text("0123456789abcdef", min_size=HEX[algorithm], max_size=HEX[algorithm]).map(
        lambda encoded: f"{algorithm}:{encoded}"
    )
)
words = st.text("abcxyz0189", min_size=1, max_size=6)
separators = st.sampled_from([".", "_", "__", "-", "--", "---"])
components = st.builds(
    lambda first, rest: first + "".join(separator + word for separator, word in rest),
    words,
    st.lists(st.tuples(separators, words), max_size=3),
)
repositories = st.lists(components | st.sampled_from(["manifests", "blobs", "tags", "v2"]), min_size=2, max_size=4).map(
    "/".join
)
tags = st.from_regex(r"[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127}", fullmatch=True)
hosts = st.sampled_from(["localhost", "docker.io", "ghcr.io", "my-registry.example", "10.0.0.1", "[fc00::1]", "[::1]"])
registries = st.builds(lambda host, port: host + port, hosts, st.sampled_from(["", ":80", ":5000"]))
