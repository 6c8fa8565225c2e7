"""ApiVersions: which requests are served, in which versions."""

from collections.abc import Callable, Sequence

from octopus.broker.codes import BrokerError, Code, require
from octopus.broker.node import Node
from octopus.broker.request import Answer, Api, Request
from octopus.broker.wire import Writer


def api_versions(list_apis: Callable[[], Sequence[Api]]) -> Api:
    """Return the row of ApiVersions itself, which answers with the table it stands in."""

    def handle(node: Node, request: Request) -> Answer:
        return _answer(request, list_apis())

    return Api(18, "ApiVersions", 0, 2, handle, before_login=True)


def _answer(request: Request, apis: Sequence[Api]) -> Writer:
    code, version = int(Code.NONE), request.version
    try:
        request.check()
        # A newer client learns from error 35, in the oldest layout, which version to use instead.
        require(version <= request.api.most, Code.UNSUPPORTED_VERSION)
    except BrokerError as error:
        code = request.refuse(error)
        version = 0 if version > request.api.most else version
    answer = Writer().int16(code)
    answer.array(apis, lambda api: answer.int16(api.key).int16(api.least).int16(api.most))
    return answer.int32(0) if version >= 1 else answer
