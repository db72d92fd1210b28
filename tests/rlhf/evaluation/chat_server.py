"""An OpenAI-compatible endpoint with a simple mind, run as a process of its own: python chat_server.py LOG.

The model's name says how it judges. It writes its port to standard output and each request to LOG.
"""

import json
import sys
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock

LOG = Path(sys.argv[1])
SEEN: Counter[str] = Counter()
LOCK = Lock()


def verdict(model: str, first: str, second: str) -> str:
    if model == "first":
        return "A"
    return "tie" if len(first) == len(second) else "A" if len(first) > len(second) else "B"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with LOCK:
            SEEN[body["messages"][1]["content"]] += 1
            attempt = SEEN[body["messages"][1]["content"]]
            with LOG.open("a") as log:
                record = {"path": self.path, "key": self.headers.get("Authorization"), "body": body}
                log.write(json.dumps(record) + "\n")
        asked = json.loads(body["messages"][1]["content"])
        model = body["model"]
        if model == "locked":
            return self.reply(401, {"error": {"message": "no such key"}})
        if model == "down" or (model == "flaky" and attempt == 1):
            return self.reply(503, {"error": {"message": "busy"}}, {"Retry-After": "7"})
        if model == "flaky" and attempt == 2:
            return self.close_connection_rudely()
        said = {"reason": "so", "verdict": verdict(model, asked["response_A"], asked["response_B"])}
        content = f"```json\n{json.dumps(said)}\n```" if model == "fenced" else json.dumps(said)
        if model == "babbling" or (model == "flaky" and attempt == 3):
            content = "The first one is better, I think."
        return self.reply(
            200,
            {
                "choices": [{"message": {"role": "assistant", "content": content}}],
                "usage": {"prompt_tokens": 100, "completion_tokens": 10},
            },
        )

    def close_connection_rudely(self) -> None:
        self.close_connection = True
        self.connection.shutdown(2)

    def reply(self, status: int, body: dict[str, object], headers: dict[str, str] | None = None) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
