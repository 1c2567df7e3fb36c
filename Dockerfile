# One image for every role; docker-compose.yml says which role a container has. The target `nats` is its NATS server.

FROM nats:2.15-alpine AS nats
RUN mkdir /data && chown 10001:10001 /data
USER 10001:10001

FROM python:3.13-slim AS build
WORKDIR /src
COPY requirements-image.txt requirements-build.txt pyproject.toml hatch_build.py README.md LICENSE ./
RUN python -m venv /venv && /venv/bin/pip install --no-cache-dir --require-hashes -r requirements-image.txt
RUN python -m venv /tools && /tools/bin/pip install --no-cache-dir --require-hashes -r requirements-build.txt
COPY domain domain
COPY ledger ledger
COPY projections projections
COPY consumers consumers
COPY config config
COPY dashboard dashboard
COPY app app
COPY resolution_ledger resolution_ledger
RUN /tools/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheel . \
    && /venv/bin/pip install --no-cache-dir --no-deps --no-index /wheel/*.whl && /venv/bin/pip uninstall --yes pip

FROM python:3.13-slim
# A volume takes over the owner of the folder at which the image has it, so that no container needs root.
RUN groupadd --gid 10001 ledger && useradd --create-home --uid 10001 --gid ledger ledger \
    && mkdir /data /certificates /authority /secrets /nats-1-certificate /nats-2-certificate /nats-3-certificate /postgres-certificate && chown ledger:ledger /data /certificates /authority /secrets /nats-1-certificate /nats-2-certificate /nats-3-certificate /postgres-certificate
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 RESOLUTION_LEDGER_DATA_DIR=/data
USER 10001:10001
VOLUME /data
ENTRYPOINT ["resolution-ledger"]
CMD ["up"]
