# crystalgfn with CPU packages and CHGNet:
#   docker build -t crystalgfn .
#   docker run --rm -v "$PWD:/work" crystalgfn sample n=20 out=runs/first
FROM python:3.12-slim AS build
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
RUN python -m venv /opt/crystalgfn
ENV PATH=/opt/crystalgfn/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /source
COPY constraints.txt ./
RUN pip install -c constraints.txt setuptools \
    && pip install "$(grep '^torch==' constraints.txt)" --index-url https://download.pytorch.org/whl/cpu
COPY pyproject.toml setup.py MANIFEST.in README.md LICENSE ./
COPY config config
COPY proxies proxies
COPY crystalgfn crystalgfn
RUN pip install --no-build-isolation -c constraints.txt ".[relax]"

FROM python:3.12-slim
# what the compiled modules of PyTorch and its extensions load
RUN apt-get update && apt-get install -y --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --create-home crystalgfn && mkdir /work && chown crystalgfn /work
COPY --from=build /opt/crystalgfn /opt/crystalgfn
ENV PATH=/opt/crystalgfn/bin:$PATH PYTHONUNBUFFERED=1
USER crystalgfn
WORKDIR /work
ENTRYPOINT ["crystalgfn"]
