# docker build -t backstop:0.2.0 -t backstop .
# docker run --rm --shm-size=2g \
#     -v backstop-store:/home/backstop/store -v "$PWD/data:/data" backstop list

FROM python:3.11-slim

# No .pyc files in the image and no buffered lines: logs of a killed container are complete.
ENV PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1

# KubeRay asks with wget whether a node is alive.
RUN apt-get update && apt-get install --yes --no-install-recommends wget && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/backstop

# The dependencies are gigabytes and change rarely: a layer of their own, made from the two files
# that name them, so that a change of code rebuilds in seconds; those of a cluster's machines among
# them. Versions are those of constraints.txt, as in the Makefile.
COPY pyproject.toml constraints.txt ./
RUN python -c "import tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; print(*project['dependencies'], *project['optional-dependencies']['cluster'], sep='\n')" > /tmp/requirements.txt \
    && pip install --constraint constraints.txt --requirement /tmp/requirements.txt \
    && rm /tmp/requirements.txt

# The links under src/ are relative, so COPY keeps them working. --no-deps: a missing pin must fail
# in the layer above.
COPY . .
RUN pip install --no-deps .

# Not root, with a home that can be written: Ray keeps its token there, and the store lies there by default.
RUN useradd --create-home --uid 1000 backstop \
    && mkdir -p /data /home/backstop/store \
    && chown backstop:backstop /data /home/backstop/store
USER backstop
WORKDIR /home/backstop/store

# Data sets are mounted, never baked in.
ENV BACKSTOP_DATA=/data
VOLUME ["/data"]

ENTRYPOINT ["backstop"]
CMD ["--help"]
