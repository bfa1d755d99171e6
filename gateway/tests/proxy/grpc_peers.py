"""A gRPC server and, with the address of a proxy before it, its client; messages are plain bytes.

grpc_peers.py server              prints its port and serves until its input ends
grpc_peers.py client HOST:PORT    calls in all four ways, and prints "ok"
"""

import concurrent.futures
import sys
import threading

import grpc

COUNT = 200


def each(requests, _context):
    for request in requests:
        yield request[::-1]


def joined(requests, context):
    context.set_trailing_metadata([("sum-bin", b"\x00\xff")])
    return b"".join(requests)


def repeated(request, _context):
    return (request + str(at).encode() for at in range(COUNT))


def single(request, context):
    if request == b"fail":
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "as asked")
    if request == b"wait":
        gone = threading.Event()
        context.add_callback(gone.set)
        gone.wait(20)
    return request


class Handler(grpc.GenericRpcHandler):
    def service(self, details):
        return {
            "/t.T/Single": grpc.unary_unary_rpc_method_handler(single),
            "/t.T/Joined": grpc.stream_unary_rpc_method_handler(joined),
            "/t.T/Repeated": grpc.unary_stream_rpc_method_handler(repeated),
            "/t.T/Each": grpc.stream_stream_rpc_method_handler(each),
        }.get(details.method)


def serve():
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(16))
    server.add_generic_rpc_handlers((Handler(),))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    server.start()
    sys.stdin.read()
    server.stop(None)


def code_of(call):
    try:
        call()
    except grpc.RpcError as error:
        return error.code()
    return None


def ask(address):
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        assert channel.unary_unary("/t.T/Single")(b"one", timeout=20) == b"one"
        large = bytes(range(256)) * 8192
        assert channel.unary_unary("/t.T/Single")(large, timeout=20) == large
        parts = [str(at).encode() for at in range(COUNT)]
        answer, call = channel.stream_unary("/t.T/Joined").with_call(iter(parts), timeout=20)
        assert answer == b"".join(parts)
        assert dict(call.trailing_metadata())["sum-bin"] == b"\x00\xff"
        assert list(channel.unary_stream("/t.T/Repeated")(b"x", timeout=20)) == [b"x" + part for part in parts]

        # A ping-pong: what is sent next depends on the answer before.
        answered = threading.Semaphore(1)

        def questions():
            for part in parts:
                assert answered.acquire(timeout=20)
                yield part

        answers = []
        for answer in channel.stream_stream("/t.T/Each")(questions(), timeout=40):
            answers.append(answer)
            answered.release()
        assert answers == [part[::-1] for part in parts]

        single_call = channel.unary_unary("/t.T/Single")
        failed = code_of(lambda: single_call(b"fail", timeout=20))
        assert failed == grpc.StatusCode.FAILED_PRECONDITION, failed
        unknown = code_of(lambda: channel.unary_unary("/t.T/None")(b"", timeout=20))
        assert unknown == grpc.StatusCode.UNIMPLEMENTED, unknown
        late = code_of(lambda: single_call(b"wait", timeout=0.3))
        assert late == grpc.StatusCode.DEADLINE_EXCEEDED, late
        cancelled = single_call.future(b"wait", timeout=20)
        cancelled.cancel()
        assert cancelled.cancelled()
        assert single_call(b"after", timeout=20) == b"after"
    print("ok")


if __name__ == "__main__":
    if sys.argv[1] == "server":
        serve()
    else:
        ask(sys.argv[2])
