"""What happens to the cluster. Each scenario repairs all that it breaks."""

from frame import scenario
from processes import Redis, build_clock


def in_memory(cluster):
    return [()]


@scenario("one server, in memory", "nothing happens", in_memory)
def one_server(cluster):
    cluster.wait(5)
