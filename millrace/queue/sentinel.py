"""Where the primary is, by the word of Redis Sentinels.

Asked for each connection, and each second while there is one (`Dial`): the Sentinel first that answered last
(redis.io/docs, "Guidelines for Redis clients with support for Redis Sentinel"). Sentinels tell a primary that was
replaced so only after some 10 s; until then it goes on as if it were one, and would take what is written to it along.
"""

from collections.abc import Callable, Sequence

from redis.asyncio import Connection
from redis.exceptions import ConnectionError as RedisConnectionError

from millrace.queue.dialing import ask_once
from millrace.queue.server import Address


class Sentinels:
    """`dial` makes a connection to a Sentinel."""

    def __init__(self, addresses: Sequence[Address], primary: str, dial: Callable[[Address], Connection]) -> None:
        self._addresses, self._primary, self._dial = list(addresses), primary, dial

    async def locate(self) -> Address:
        """Raises RedisConnectionError where no Sentinel knows."""
        said = []
        for address in tuple(self._addresses):
            try:
                found = await ask_once(self._dial(address), "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._primary)
            except RedisConnectionError as error:
                said.append(str(error))
                continue
            if found is not None:
                self._addresses.remove(address)
                self._addresses.insert(0, address)
                host, port = found
                return host.decode(), int(port)
            said.append(f"{address[0]}:{address[1]}: knows none of this name")
        raise RedisConnectionError(f"no Sentinel says where {self._primary} is: {'; '.join(said)}")
