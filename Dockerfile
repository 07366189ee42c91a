# One image for every role, for `sluice deploy` and for the Prefect server: what differs is the command (compose.yaml).
ARG PYTHON_VERSION=3.11

FROM python:${PYTHON_VERSION}-slim AS build
# What is left out although it is locked: a sixth of the image, for loads into DuckDB's files. `--build-arg WITHOUT=` keeps it.
ARG WITHOUT=duckdb
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /app
# What the base image brings is noted before anything else is installed: the last stage begins with the same.
COPY requirements/debian.py requirements/
RUN mkdir build && python requirements/debian.py > build/base.json
# `strip` makes the libraries 40 MB smaller; it stays in this stage.
RUN apt-get update -qq && apt-get install -qq --no-install-recommends binutils >/dev/null
# First what changes seldom, so that a change of the code does not install everything anew.
COPY requirements/service.txt requirements/slim.py requirements/
RUN python -m venv .venv \
    && .venv/bin/python -m pip install --quiet --no-compile --require-hashes --no-deps -r requirements/service.txt \
    && .venv/bin/python -m pip uninstall --quiet --yes ${WITHOUT} setuptools pip \
    && .venv/bin/python requirements/slim.py \
    && .venv/bin/python -c "import adbc_driver_sqlite.dbapi, asyncpg, burner_redis, cryptography.x509, hiredis, httptools, \
        psycopg, pyarrow.compute, pyarrow.dataset, pyarrow.parquet, python_calamine, sqlalchemy, uvloop, watchfiles, yaml"
# The licences and the bill of materials of what was installed, with tools that are left behind.
COPY requirements/audit.txt requirements/audit.py requirements/
RUN python -m venv .venv-audit \
    && .venv-audit/bin/python -m pip install --quiet --require-hashes --no-deps -r requirements/audit.txt \
    && .venv-audit/bin/python requirements/audit.py --offline \
    && rm -r .venv-audit build/base.json
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
ARG VERSION=local
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Sluice" \
    org.opencontainers.image.description="Files, messages and HTTP calls become Prefect flow runs; signals resume waiting ones." \
    org.opencontainers.image.licenses="MIT" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"
RUN groupadd --gid 10001 sluice \
    && useradd --uid 10001 --gid 10001 --home-dir /data --no-create-home --shell /usr/sbin/nologin sluice \
    && install -d -o 10001 -g 10001 /data /data/home /data/inbox
# Python's own modules too: some base images have no byte code of them, and each process would compile what it imports.
RUN python -c "import compileall, re, sysconfig; compileall.compile_dir(sysconfig.get_path('stdlib'), quiet=2, \
    rx=re.compile('/(ensurepip|idlelib|lib2to3|pydoc_data|site-packages|dist-packages|test|tkinter|turtledemo)/'))"
COPY --from=build /app /app
ENV PATH=/app/.venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    SLUICE_HOME=/data/home \
    SLUICE_READY_FILE=/tmp/sluice-ready \
    PREFECT_HOME=/tmp/prefect \
    PREFECT_LOCAL_STORAGE_PATH=/data/home/results \
    PREFECT_SERVER_UI_STATIC_DIRECTORY=/tmp/prefect-ui \
    PREFECT_SERVER_ANALYTICS_ENABLED=false \
    DO_NOT_TRACK=1
WORKDIR /app
USER 10001:10001
EXPOSE 4200 4280
# What the role in this container reported last; `sluice status`, which asks every server, takes half a second of a core.
HEALTHCHECK --interval=10s --timeout=20s --start-period=180s --retries=3 CMD ["python", "-m", "services.home.ready_file"]
ENTRYPOINT ["sluice"]
CMD ["--help"]
