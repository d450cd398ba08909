# The operator alone: no compiler, no pip in its environment, nothing of the devkit.
ARG PYTHON_VERSION=3.13

FROM python:${PYTHON_VERSION}-slim AS build
WORKDIR /src
COPY requirements.lock requirements-build.lock ./
RUN python -m venv --without-pip /venv
RUN python -m pip --python /venv/bin/python install --no-cache-dir --only-binary=:all: --require-hashes -r requirements.lock
RUN python -m pip install --no-cache-dir --only-binary=:all: --require-hashes -r requirements-build.lock
COPY pyproject.toml README.md LICENSE ./
COPY operator/openairun_operator operator/openairun_operator
RUN python -m pip wheel --no-deps --no-build-isolation --wheel-dir /dist .
RUN python -m pip --python /venv/bin/python install --no-cache-dir --no-deps /dist/*.whl

FROM python:${PYTHON_VERSION}-slim
COPY --from=build /venv /venv
# Nothing is written: bytecode was compiled above, and the root may be read-only.
ENV PATH=/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /
# Numbers, so that runAsNonRoot can be checked without the image's /etc/passwd.
USER 65532:65532
ENTRYPOINT ["openairun-operator"]
CMD ["run"]
