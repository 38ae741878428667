# The image of the agent, for amd64 and arm64: docs/install.md says how it is built, also without Docker.
#
#   docker buildx build --platform linux/amd64,linux/arm64 -t REGISTRY/p2pmirror:VERSION .
#
# BUILD_BASE has pip, RUN_BASE has not: both are Debian 12 with Python 3.11, so that what is built for one runs on the other.
ARG BUILD_BASE=docker.io/library/python:3.11.14-slim-bookworm
ARG RUN_BASE=gcr.io/distroless/python3-debian12:nonroot

FROM ${BUILD_BASE} AS build
# Where wheels come from, and whose certificates count there, when that is not PyPI.
ARG PIP_INDEX_URL
ARG PIP_CERT
WORKDIR /src
COPY requirements/run.txt requirements/run.txt
# Wheels alone, checked by their hashes: nothing is compiled, and nothing else gets in.
RUN python3 -m pip install --no-cache-dir --disable-pip-version-check --require-hashes --only-binary :all: --no-compile \
    --target /app -r requirements/run.txt && rm -rf /app/bin
COPY p2pmirror /app/p2pmirror
RUN find /app -name '*.py[co]' -delete && python3 -m compileall -q --invalidation-mode unchecked-hash /app \
    && mkdir -p /launcher \
    && printf '#!/usr/bin/python3\nfrom p2pmirror.cli import main\n\nmain()\n' > /launcher/p2pmirror \
    && chmod 755 /launcher/p2pmirror

FROM ${RUN_BASE}
COPY --from=build /app /app
COPY --from=build /launcher/p2pmirror /usr/local/bin/p2pmirror
ENV PYTHONPATH=/app PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PATH=/usr/local/bin:/usr/bin:/bin
# An agent that reads containerd's socket and content is root (the chart says so); a shared cache need not be.
USER 65532:65532
EXPOSE 29999/tcp 29998/udp 9090/tcp
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s \
    CMD ["/usr/bin/python3", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:9090/livez', timeout=2)"]
ENTRYPOINT ["/usr/bin/python3", "-m", "p2pmirror"]
CMD ["agent"]
