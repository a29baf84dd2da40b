# A small image with one program in it: no shell, no package manager, no root.
FROM rust:1.95-slim-bookworm AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates gcc g++ make \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY Cargo.toml Cargo.lock clippy.toml ./
COPY src src
COPY benches benches
COPY tests tests
# The texts of `config schema` and of `help`.
COPY docs/reference.md docs/findings.md docs/refusals.md docs/
# `--build-arg PGO=1` builds with profile-guided optimization (docs/performance.md): a fifth fewer instructions per request, and
# a build that takes several times as long.
ARG PGO=0
RUN if [ "$PGO" = 1 ]; then \
        apt-get update && apt-get install -y --no-install-recommends curl nghttp2-client nginx-light \
     && rustup component add llvm-tools && benches/pgo.sh && cp target/pgo/portcullis /portcullis; \
    else \
        cargo build --release --locked --bin portcullis && cp target/release/portcullis /portcullis; \
    fi
# The program and the few shared objects that it names, at the paths where it looks for them, are all that it needs.
COPY docker-root.sh ./
RUN ./docker-root.sh /portcullis /image \
 && mkdir -p /image/etc/portcullis /image/etc/ssl/certs /image/var/lib/portcullis \
 && cp /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ \
 && chown -R 65532:65532 /image/var/lib/portcullis

FROM scratch
COPY --from=build /image /
COPY gateway.toml /etc/portcullis/gateway.toml
USER 65532:65532
WORKDIR /var/lib/portcullis
# In a container the public listeners must be reachable from outside of it; the admin listener need not be. Clients are
# redirected to 443: publish 8443 as that (-p 443:8443 -p 80:8080), or say another port.
ENV PORTCULLIS_SERVER__HTTPS="[::]:8443" \
    PORTCULLIS_SERVER__HTTP="[::]:8080" \
    PORTCULLIS_SERVER__PUBLIC_PORT="443" \
    PORTCULLIS_SERVER__ADMIN="127.0.0.1:9900" \
    PORTCULLIS_STATE__DIR="/var/lib/portcullis/state"
VOLUME ["/var/lib/portcullis"]
EXPOSE 8443 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 \
    CMD ["/portcullis", "healthcheck", "--config", "/etc/portcullis/gateway.toml"]
ENTRYPOINT ["/portcullis"]
CMD ["run", "--config", "/etc/portcullis/gateway.toml"]
