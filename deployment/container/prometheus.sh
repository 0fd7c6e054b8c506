#!/bin/sh
# Builds an image prom/prometheus from Debian's package, for engines that cannot pull the usual
# one. An image of that name is left alone.
set -eu
name=prom/prometheus
if docker image inspect "$name" >/dev/null 2>&1 || docker pull -q "$name" >/dev/null 2>&1; then
	exit 0
fi
docker build -q --network host -t "$name" - <<'END'
FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends prometheus && rm -rf /var/lib/apt/lists/*
USER nobody
WORKDIR /tmp
ENTRYPOINT ["prometheus"]
CMD ["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/tmp/metrics"]
END
