# The images of the operator and the forwarder:
#
#   docker build --target operator --tag fanout-operator .
#   docker build --target forwarder --tag fanout-forwarder .
#
# Each is a root file system of a program and the libraries it needs, run by a user who is not root; nothing in it is ever written.

# What compiles.
ARG BUILDER=rust:1.90-slim-bookworm
# What the images start from: nothing. Any base with the same or a newer glibc will do, should a policy ask for one.
ARG RUNTIME=scratch
# The stage or image that has the finished file systems in /image: another one than `built` for binaries that exist already.
ARG FILES=built

FROM ${BUILDER} AS built
# What librdkafka and its TLS compile against, and the certificates of public authorities.
RUN apt-get update \
    && apt-get install -y --no-install-recommends binutils ca-certificates g++ gcc libssl-dev make pkg-config zlib1g-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .
RUN cargo build --release --locked --package operator --package forwarder --bins
RUN .docker/root-file-system target/release/operator /image/operator \
    && .docker/root-file-system target/release/forwarder /image/forwarder

FROM ${FILES} AS files

FROM ${RUNTIME} AS operator
COPY --from=files /image/operator /
USER 65532:65532
ENTRYPOINT ["/usr/bin/operator"]

FROM ${RUNTIME} AS forwarder
COPY --from=files /image/forwarder /
USER 65532:65532
ENTRYPOINT ["/usr/bin/forwarder"]
