"""A stand-in for an LLM endpoint: answers every POST with one short reply in Anthropic's message format.

``python3 stub_llm.py --host 0.0.0.0 --port 0`` prints ``listening on HOST:PORT`` and serves until it is ended. The reply
is streamed as server-sent events unless the request says ``"stream": false``.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TEXT = "Done. Confidence: 0.95"
USAGE = {"input_tokens": 10, "output_tokens": 5}


def message(content: list[dict[str, str]], stop_reason: str | None) -> dict[str, object]:
    """A message as far as it has come."""
    return {
        "id": "msg_stub",
        "type": "message",
        "role": "assistant",
        "model": "stub",
        "content": content,
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "usage": USAGE,
    }


def events() -> Iterator[dict[str, object]]:
    """The reply, event by event."""
    yield {"type": "message_start", "message": message([], None)}
    yield {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    yield {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": TEXT}}
    yield {"type": "content_block_stop", "index": 0}
    yield {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": USAGE}
    yield {"type": "message_stop"}


class Handler(BaseHTTPRequestHandler):
    """Each answer ends its connection, which is how its reader knows that a stream is over."""

    def do_POST(self) -> None:
        """Reply, whatever was asked."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if wants_stream(body):
            content = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events())
            self.reply("text/event-stream", content)
        else:
            self.reply("application/json", json.dumps(message([{"type": "text", "text": TEXT}], "end_turn")))

    def reply(self, content_type: str, content: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.end_headers()
        self.wfile.write(content.encode())

    def log_message(self, *_words: object) -> None:
        """Say nothing."""


def wants_stream(body: bytes) -> bool:
    try:
        request = json.loads(body)
    except ValueError:
        return True
    return not (isinstance(request, dict) and request.get("stream") is False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    with ThreadingHTTPServer((options.host, options.port), Handler) as server:
        sys.stdout.write(f"listening on {options.host}:{server.server_port}\n")
        sys.stdout.flush()
        server.serve_forever()


if __name__ == "__main__":
    main()
