"""Replies of Redis and Valkey (RESP2), as much of them as single values need."""

from cfscale.adapters.probes.network import AnswerError, Wire

Value = bytes | int | None | Exception


class RefusalError(Exception):
    """An error that the server sent."""


class Replies:
    """The replies of a connection, one after the other."""

    def __init__(self, wire: Wire) -> None:
        self._wire, self._data = wire, b""

    async def next(self) -> Value:
        """A text, a number, None for nothing, or the error that was sent; raises AnswerError for what is no reply."""
        line = await self._line()
        kind, rest = line[:1], line[1:]
        match kind:
            case b"+":
                return rest
            case b"-":
                return RefusalError(rest.decode("utf-8", "replace"))
            case b":" if _is_number(rest):
                return int(rest)
            case b"$" if _is_number(rest):
                return await self._text(int(rest))
            case _:
                raise AnswerError(f"not a redis answer: {line[:40].decode('ascii', 'replace')}")

    async def _line(self) -> bytes:
        while (end := self._data.find(b"\r\n")) < 0:
            await self._more()
        line, self._data = self._data[:end], self._data[end + 2 :]
        return line

    async def _text(self, length: int) -> bytes | None:
        if length < 0:
            return None
        while len(self._data) < length + 2:
            await self._more()
        text, self._data = self._data[:length], self._data[length + 2 :]
        return text

    async def _more(self) -> None:
        more = await self._wire.read()
        if not more:
            raise AnswerError("the connection was closed without an answer")
        self._data += more


def _is_number(text: bytes) -> bool:
    return text.lstrip(b"-").isdigit()
