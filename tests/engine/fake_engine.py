"""A process that speaks the engine's frames and misbehaves as the job's `checkpoint` field says. Run by test_process.py, never imported."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys

import msgspec


def send(body: bytes) -> None:
    sys.stdout.buffer.write(len(body).to_bytes(4, "big") + body)
    sys.stdout.buffer.flush()


def reply(number: int, **content: object) -> None:
    send(msgspec.msgpack.encode({"id": number, **content}))


def result(tokens: int) -> dict[str, object]:
    return {"type": "validation_result", "loss_nanonats": os.getpid(), "tokens": tokens}


def main() -> None:
    while prefix := sys.stdin.buffer.read(4):
        request = msgspec.msgpack.decode(sys.stdin.buffer.read(int.from_bytes(prefix, "big")))
        number, job = request["id"], request["job"]
        match job["checkpoint"]:
            case "ok":
                reply(number, result=result(job["tokens"]))
            case "die":
                print("the last straw", file=sys.stderr, flush=True)
                os._exit(3)
            case "SIGKILL" | "SIGSEGV" | "SIGABRT" | "SIGTERM" as name:
                resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
                os.kill(os.getpid(), signal.Signals[name])
            case "micro batch":
                reply(number, result=result(int(sys.argv[sys.argv.index("--micro-batch") + 1]) if "--micro-batch" in sys.argv else 0))
            case "reply, then die":
                reply(number, result=result(0))
                os._exit(0)
            case "hang":
                print("hanging", file=sys.stderr, flush=True)
                signal.pause()
            case "long line":
                print("x" * 10_000 + "\x1b[31m", file=sys.stderr, flush=True)
                reply(number, result=result(0))
            case "half a frame":
                sys.stdout.buffer.write(b"\0\0\1\0half")
                sys.stdout.buffer.flush()
                os._exit(0)
            case "too large a frame":
                sys.stdout.buffer.write((1 << 31).to_bytes(4, "big"))
                sys.stdout.buffer.flush()
                signal.pause()
            case "garbage":
                send(b"\xc1\xff")
            case "another job's reply":
                reply(number + 1, result=result(0))
            case "neither":
                reply(number)
            case "both":
                reply(number, result=result(0), error={"family": "local", "message": "x"})
            case "unknown family":
                reply(number, error={"family": "odd", "message": "x"})
            case "local" | "unavailable" as family:
                reply(number, error={"family": family, "message": "said so"})
            case "environment":
                print(" ".join(sorted(os.environ)), os.environ["OMP_NUM_THREADS"], file=sys.stderr, flush=True)
                reply(number, result=result(0))
            case "child":
                child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"], stdin=subprocess.DEVNULL)
                reply(number, result=result(child.pid))


main()
