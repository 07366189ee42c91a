# One image for every role, for `sluice deploy` and for the Prefect server: what differs is the command (compose.yaml).
ARG PYTHON_VERSION=3.11

FROM python:${PYTHON_VERSION}-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /app
# First what changes seldom, so that a change of the code does not install everything anew.
COPY requirements/service.txt requirements/
RUN python -m venv .venv && .venv/bin/python -m pip install --quiet --require-hashes --no-deps -r requirements/service.txt
COPY requirements/launcher.py requirements/
COPY config config
COPY events events
COPY flows flows
COPY tasks tasks
COPY services services
COPY sluice sluice
# The file system is read-only at run time: byte code is written here or never.
RUN .venv/bin/python requirements/launcher.py && .venv/bin/python -m compileall -q config events flows services sluice tasks

FROM python:${PYTHON_VERSION}-slim
RUN groupadd --gid 10001 sluice \
    && useradd --uid 10001 --gid 10001 --home-dir /data --no-create-home --shell /usr/sbin/nologin sluice \
    && install -d -o 10001 -g 10001 /data /data/home /data/inbox
COPY --from=build /app /app
ENV PATH=/app/.venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    SLUICE_HOME=/data/home \
    PREFECT_HOME=/tmp/prefect \
    PREFECT_LOCAL_STORAGE_PATH=/data/home/results \
    PREFECT_SERVER_UI_STATIC_DIRECTORY=/tmp/prefect-ui \
    PREFECT_SERVER_ANALYTICS_ENABLED=false \
    DO_NOT_TRACK=1
WORKDIR /app
USER 10001:10001
EXPOSE 4200 4280
HEALTHCHECK --interval=15s --timeout=10s --start-period=90s --retries=4 CMD ["sluice", "status"]
ENTRYPOINT ["sluice"]
CMD ["--help"]
