# rollcall as an image: one static binary, the CA certificates, and a directory for the embedded server's store.
#
#   docker build -t rollcall:1.0.0 --build-arg VERSION=1.0.0 --build-arg COMMIT="$(git rev-parse HEAD)" .
#   docker run --env-file rollcall.env -v rollcall-data:/data rollcall:1.0.0
#
# Nothing listens beyond the container's own loopback unless told to: ROLLCALL_NATS_LISTEN=:4222 opens the embedded server to
# readers, ROLLCALL_OPS_LISTEN=:9464 the metrics and probes.
# A directory that is mounted on /data in place of a volume must belong to the user 65532. deploy/compose.yaml runs a pair.

FROM --platform=$BUILDPLATFORM golang:1.26 AS build
WORKDIR /src
ENV CGO_ENABLED=0 GOFLAGS=-buildvcs=false GOTOOLCHAIN=local

# The modules change less often than the code.
COPY go.mod go.sum ./
RUN go mod download

COPY . .
ARG TARGETOS TARGETARCH VERSION=dev COMMIT=unknown
RUN mkdir -p out/data && \
    GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath \
      -ldflags "-s -w -X main.version=$VERSION -X main.commit=$COMMIT" \
      -o out/rollcall ./cmd/rollcall

FROM scratch
ARG VERSION=dev COMMIT=unknown
LABEL org.opencontainers.image.title="rollcall" \
      org.opencontainers.image.description="Turns the agent listing of an ISDP+ tenant into a trustworthy stream of events on NATS JetStream" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$COMMIT" \
      org.opencontainers.image.source="https://github.com/rollcall-events/rollcall" \
      org.opencontainers.image.documentation="https://github.com/rollcall-events/rollcall/blob/main/docs/deployment.md"
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /src/out/rollcall /rollcall
COPY --from=build --chown=65532:65532 /src/out/data /data
# A crash is a signal and not exit code 2, which means a setting that can't be used.
ENV ROLLCALL_DATA_DIR=/data GOTRACEBACK=crash
VOLUME /data
USER 65532:65532
# Unhealthy means that it can't publish or could not take over. The vendor's troubles never make it unhealthy.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["/rollcall", "check", "--ready"]
ENTRYPOINT ["/rollcall"]
