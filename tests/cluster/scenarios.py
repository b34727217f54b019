"""What happens to the cluster. Each scenario repairs all that it breaks: in the end every event has to be
acknowledged, and every client has to have it."""

import contextlib
import time

from frame import scenario
from processes import Redis, build_clock, set_back
from relay import Relay
from server import until

# Longer than a publisher waits for its answer, and than the server waits for Redis.
REDIS_STOPPED = 10.0
# Longer than clients and proxies wait for a server that says nothing.
SERVER_PAUSED = 20.0
# How soon a server must notice that Redis is away, or back.
NOTICED_WITHIN = 8.0


def in_memory(cluster):
    """One server that forgets."""
    return [()]


def on_redis(cluster, persistent=False):
    """Three servers and a Redis."""
    cluster.redis = cluster.stack.enter_context(Redis(cluster.folder, persistent=persistent))
    return [("--redis", f"redis://127.0.0.1:{cluster.redis.port}")] * 3


def on_persistent_redis(cluster):
    """Three servers and a Redis that writes each command to its disk before it answers."""
    return on_redis(cluster, persistent=True)


def on_two_redis(cluster):
    """Three servers; a Redis and its replica, at an address that either may have."""
    flags = on_redis(cluster)
    cluster.replica = cluster.stack.enter_context(Redis(cluster.folder, "replica"))
    cluster.replica.follow(cluster.redis)
    cluster.relay = cluster.stack.enter_context(Relay(cluster.redis.port))
    return [("--redis", f"redis://127.0.0.1:{cluster.relay.port}")] * len(flags)


def on_redis_with_a_clock(cluster):
    """Three servers and a Redis. The first server's clock can be set back."""
    cluster.variables, cluster.clock = build_clock(cluster.folder)
    return on_redis(cluster)


def wait_healthy(cluster):
    until(lambda: all(node.health() == "ok" for node in cluster.nodes), "all servers are healthy",
          NOTICED_WITHIN)


def wait_degraded(cluster):
    """Redis is away, and each server says so, but wants to keep its clients."""
    until(lambda: all(node.health() == "degraded" for node in cluster.nodes), "all servers are degraded",
          NOTICED_WITHIN)


@contextlib.contextmanager
def paused(process):
    """Stops a server, or Redis."""
    process.pause()
    try:
        yield
    finally:
        process.go_on()


@contextlib.contextmanager
def killed(process):
    """Kills a server, or Redis, and starts it again."""
    process.kill()
    try:
        yield
    finally:
        process.start()


@scenario("one server, in memory", "nothing happens", in_memory)
def one_server(cluster):
    cluster.wait(4)


@scenario("steady", "nothing happens to three servers", on_redis)
def steady(cluster):
    with cluster.goes_on(200):
        cluster.wait(6)


@scenario("rolling restart", "one server after another ends by SIGTERM and starts again", on_redis)
def rolling_restart(cluster):
    with cluster.goes_on(200):
        for node in cluster.nodes:
            node.stop()
            time.sleep(0.5)
            node.start()
            time.sleep(1.5)


@scenario("kill -9 of one", "one server of three, twice", on_redis)
def kill_one(cluster):
    with cluster.goes_on(200):
        for node in cluster.nodes[:2]:
            with killed(node):
                time.sleep(1.5)
            cluster.wait(1)


@scenario("kill -9 of two", "two servers of three at once, twice", on_redis)
def kill_two(cluster):
    with cluster.goes_on(200):
        for one, other in (cluster.nodes[:2], cluster.nodes[1:]):
            with killed(one), killed(other):
                time.sleep(1.5)
            cluster.wait(1)


@scenario("Redis stopped", "Redis is stopped for 10 s", on_redis)
def redis_stopped(cluster):
    began = time.monotonic()
    with cluster.goes_on(503), paused(cluster.redis):
        wait_degraded(cluster)
        cluster.wait(began + REDIS_STOPPED - time.monotonic())
    wait_healthy(cluster)


# The lower one is registered first.
@scenario("Redis killed, no AOF", "Redis is killed and comes back empty", on_redis, gaps=True,
          forgets=True)
@scenario("Redis killed, AOF", "Redis is killed and comes back with all it had", on_persistent_redis)
def redis_killed(cluster):
    with cluster.goes_on(503), killed(cluster.redis):
        wait_degraded(cluster)
        cluster.wait(2)
    wait_healthy(cluster)


@scenario("failover", "a replica that lacks the last 2 s becomes the master", on_two_redis, gaps=True,
          forgets=True)
def failover(cluster):
    lose_the_tail(cluster)
    cluster.wait(3)
    wait_healthy(cluster)


@scenario("failover, one behind", "the same, and one server has not seen what is lost", on_two_redis,
          gaps=True, forgets=True)
def failover_behind(cluster):
    with paused(cluster.nodes[0]):
        lose_the_tail(cluster)
        time.sleep(2)
    cluster.wait(2)
    wait_healthy(cluster)


def lose_the_tail(cluster):
    # From here on the replica gets nothing more.
    cluster.replica.tell("REPLICAOF", "NO", "ONE")
    time.sleep(2)
    cluster.redis.kill()
    cluster.relay.switch(cluster.replica.port)


@scenario("demotion", "the replica becomes the master as planned, and the master its replica", on_two_redis)
def demotion(cluster):
    cluster.redis.tell("FAILOVER")
    until(lambda: "role:master" in cluster.replica.tell("INFO", "replication"), "the replica is promoted")
    # Those who are still connected to the old one may only read there.
    cluster.wait(2)
    cluster.relay.switch(cluster.replica.port)
    cluster.wait(2)
    wait_healthy(cluster)


@scenario("server paused", "one server of three is stopped for 20 s", on_redis)
def server_paused(cluster):
    with cluster.goes_on(200), paused(cluster.nodes[0]):
        time.sleep(SERVER_PAUSED)
    wait_healthy(cluster)


@scenario("clock set back", "one server's clock goes back an hour; it goes on, and is started again",
          on_redis_with_a_clock)
def clock_set_back(cluster):
    with cluster.goes_on(200):
        set_back(cluster)
        cluster.wait(3)
        with killed(cluster.nodes[0]):
            pass
        cluster.wait(1)
