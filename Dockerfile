# The environment, for a machine that has only Docker. The project itself is mounted, so that data, store and git lie outside:
#   docker build -t retrain .
#   docker run --rm -v "$PWD":/project retrain dvc repro
FROM python:3.13-slim-trixie

# tini ends processes that have died: DVC waits for ever for a lock whose holder is a zombie. libgomp1 is LightGBM's.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends git libgomp1 tini \
    && rm -rf /var/lib/apt/lists/* \
    && git config --system --add safe.directory /project

ARG EXTRAS=lightgbm,parallel,search,postgres,s3
WORKDIR /project
COPY . .
RUN pip install --no-cache-dir -c constraints.txt -e ".[$EXTRAS]"

# Files that it makes belong to this user: `--build-arg USER_ID=$(id -u)` where yours is another.
ARG USER_ID=1000
RUN useradd --uid "$USER_ID" --create-home retrain && chown -R retrain /project
USER $USER_ID
ENV OMP_WAIT_POLICY=PASSIVE
ENTRYPOINT ["tini", "-g", "--"]
CMD ["dvc", "repro"]
