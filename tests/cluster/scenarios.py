"""What happens to the cluster. Each scenario repairs all that it breaks: in the end every event has to be
acknowledged, and every client has to have it."""

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


def all_healthy(cluster):
    return all(node.health() == (200, '{"status":"ok"}') for node in cluster.nodes)


def all_degraded(cluster):
    """Redis is away, and each server says so, but wants to keep its clients."""
    answers = [node.health() for node in cluster.nodes]
    return all(status == 200 and "degraded" in body for status, body in answers)


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
            node.kill()
            time.sleep(1.5)
            node.start()
            cluster.wait(1)


@scenario("kill -9 of two", "two servers of three at once, twice", on_redis)
def kill_two(cluster):
    with cluster.goes_on(200):
        for pair in (cluster.nodes[:2], cluster.nodes[1:]):
            for node in pair:
                node.kill()
            time.sleep(1.5)
            for node in pair:
                node.start()
            cluster.wait(1)


@scenario("Redis stopped", "Redis is stopped for 10 s", on_redis)
def redis_stopped(cluster):
    with cluster.goes_on(503):
        cluster.redis.pause()
        began = time.monotonic()
        until(lambda: all_degraded(cluster), "all servers are degraded", NOTICED_WITHIN)
        cluster.wait(began + REDIS_STOPPED - time.monotonic())
        cluster.redis.go_on()
    until(lambda: all_healthy(cluster), "all servers are healthy", NOTICED_WITHIN)


@scenario("Redis killed, AOF", "Redis is killed and comes back with all it had", on_persistent_redis)
def redis_killed(cluster):
    with cluster.goes_on(503):
        cluster.redis.kill()
        until(lambda: all_degraded(cluster), "all servers are degraded", NOTICED_WITHIN)
        cluster.wait(2)
        cluster.redis.start()
    until(lambda: all_healthy(cluster), "all servers are healthy", NOTICED_WITHIN)


@scenario("Redis killed, no AOF", "Redis is killed and comes back empty", on_redis, gaps=True,
          forgets=True)
def redis_emptied(cluster):
    with cluster.goes_on(503):
        cluster.redis.kill()
        until(lambda: all_degraded(cluster), "all servers are degraded", NOTICED_WITHIN)
        cluster.wait(1)
        cluster.redis.start()
    until(lambda: all_healthy(cluster), "all servers are healthy", NOTICED_WITHIN)


@scenario("failover", "a replica that lacks the last 2 s becomes the master", on_two_redis, gaps=True,
          forgets=True)
def failover(cluster):
    # From here on it gets nothing more.
    cluster.replica.tell("REPLICAOF", "NO", "ONE")
    cluster.wait(2)
    cluster.redis.kill()
    cluster.relay.switch(cluster.replica.port)
    cluster.wait(3)
    until(lambda: all_healthy(cluster), "all servers are healthy", NOTICED_WITHIN)


@scenario("server paused", "one server of three is stopped for 20 s", on_redis)
def server_paused(cluster):
    with cluster.goes_on(200):
        cluster.nodes[0].pause()
        time.sleep(SERVER_PAUSED)
        cluster.nodes[0].go_on()
    until(lambda: all_healthy(cluster), "all servers are healthy", NOTICED_WITHIN)


@scenario("clock set back", "one server's clock goes back an hour; it goes on, and is started again",
          on_redis_with_a_clock)
def clock_set_back(cluster):
    with cluster.goes_on(200):
        set_back(cluster)
        cluster.wait(3)
        cluster.nodes[0].kill()
        cluster.nodes[0].start()
        cluster.wait(1)
