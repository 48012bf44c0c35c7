"""Jinja for templates that nobody vouches for: nothing is reached but what they are given, and none runs for ever.

The environment is Jinja's immutable sandbox, set up as Hugging Face does for chat templates. On top of it, a rendering
has a budget: each turn of a loop, each call, each node within and each character that is made costs some of it. What
could make much of little (a product, a width, a replacement, a list within a list) pays before it is done, or is not
there. Constants are not folded, so that compiling a template runs none of it.
"""

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any

from jinja2 import Template, TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

WORK = 64 << 20
"""Of one rendering, in characters made."""
TURN, NODE, ELEMENT = 64, 8, 16
"""What a turn of a loop or a call, a node within it, and an element of a list cost of that."""
MOST_BITS, MOST_POWER, MOST_INDENT = 4_096, 64, 16
FILTERS = (
    *("abs", "capitalize", "count", "d", "default", "dictsort", "first", "float", "groupby", "int", "items", "last"),
    *("length", "list", "lower", "map", "max", "min", "reject", "rejectattr", "reverse", "select", "selectattr"),
    *("sort", "title", "trim", "unique", "upper"),
)
TEXT_METHODS = (
    *("capitalize", "count", "endswith", "find", "index", "isalnum", "isalpha", "isdigit", "islower", "isspace"),
    *("isupper", "join", "lower", "lstrip", "partition", "removeprefix", "removesuffix", "replace", "rfind", "rindex"),
    *("rpartition", "rsplit", "rstrip", "split", "splitlines", "startswith", "strip", "title", "upper"),
)
METHODS: Mapping[type, frozenset[str]] = {
    str: frozenset(TEXT_METHODS),
    dict: frozenset(("get", "items", "keys", "values")),
    list: frozenset(("count", "index")),
    tuple: frozenset(("count", "index")),
    int: frozenset(),
    float: frozenset(),
}
"""What may be called on a value of a type."""
MADE, PAYS = " made", " pays"
"""Filters under names that no template can spell."""


class _Budget:
    def __init__(self) -> None:
        self._left = WORK

    def spend(self, cost: int) -> None:
        self._left -= cost
        if self._left < 0:
            raise SecurityError("the template does too much work")


_budget: ContextVar[_Budget] = ContextVar("budget")


@contextmanager
def metered() -> Iterator[None]:
    """Within it, templates may be rendered; together they have one budget."""
    token = _budget.set(_Budget())
    try:
        yield
    finally:
        _budget.reset(token)


def compiled(source: str) -> Template:
    """Raises Jinja's TemplateError, SyntaxError, RecursionError and MemoryError."""
    environment = _Environment()
    return environment.from_string(_Metering().visit(environment.parse(source)))


class _Generation(Extension):
    """{% generation %} marks what the model itself says, for training; here it is as if it were not there."""

    tags = frozenset(("generation",))  # type: ignore[assignment]

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(("+", "*", "**", "%"))

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=(_Generation, loopcontrols),
            optimized=False,
            finalize=_shown,
        )
        self.filters = {name: _paid(self.filters[name]) for name in FILTERS} | {
            "indent": _indent,
            "join": _join,
            "replace": _replace,
            "safe": _text,
            "string": _text,
            "tojson": _tojson,
            MADE: _made,
            PAYS: _pays,
        }
        self.globals = {name: self.globals[name] for name in ("range", "dict", "namespace")}
        self.globals["raise_exception"] = _raise

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "*":
            _weigh_product(left, right)
        elif operator == "**" and not abs(right) <= MOST_POWER:
            raise SecurityError("a power is too large")
        elif operator == "%" and isinstance(left, str):
            raise SecurityError("texts are not formatted here")
        return _made(super().call_binop(context, operator, left, right))

    def wrap_str_format(self, value: Any) -> None:
        if super().wrap_str_format(value) is not None:
            raise SecurityError("texts are not formatted here")

    def call(self, context: Any, called: Any, *args: Any, **kwargs: Any) -> Any:
        _budget.get().spend(TURN)
        owner = getattr(called, "__self__", None)
        for kind, methods in METHODS.items():
            if isinstance(owner, kind) and called.__name__ not in methods:
                raise SecurityError(f"{kind.__name__}.{called.__name__} is not available here")
        if isinstance(owner, str) and called.__name__ == "join":
            return _join(args[0], owner)
        if isinstance(owner, str) and called.__name__ == "replace":
            return _replace(owner, *args)
        return _made(super().call(context, called, *args, **kwargs))


class _Metering(NodeTransformer):
    """Makes loops, macros, literals, slices and `~` pay."""

    def visit_For(self, node: nodes.For) -> nodes.For:
        payment = self._charge(node)
        if node.test is not None:
            node.test = nodes.And(payment, node.test, lineno=node.lineno)
        return node

    def visit_Macro(self, node: nodes.Macro) -> nodes.Macro:
        self._charge(node)
        return node

    def visit_CallBlock(self, node: nodes.CallBlock) -> nodes.CallBlock:
        self._charge(node)
        return node

    def _charge(self, node: nodes.For | nodes.Macro | nodes.CallBlock) -> nodes.Expr:
        """Lets each run of the body pay for all nodes and all text in it; answers the expression that does."""
        inner = list(node.find_all(nodes.Node))
        text = sum(len(part.data) for part in inner if isinstance(part, nodes.TemplateData))
        self.generic_visit(node)
        payment = _filter(nodes.Const(True), PAYS, nodes.Const(TURN + NODE * len(inner) + text))
        node.body.insert(0, nodes.ExprStmt(payment, lineno=node.lineno))
        return payment

    def visit_Concat(self, node: nodes.Concat) -> nodes.Filter:
        self.generic_visit(node)
        return _filter(nodes.List(node.nodes, lineno=node.lineno), "join")

    def visit_List(self, node: nodes.List) -> nodes.Filter:
        return _filter(self.generic_visit(node), MADE)

    def visit_Dict(self, node: nodes.Dict) -> nodes.Filter:
        return _filter(self.generic_visit(node), MADE)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        self.generic_visit(node)
        return _filter(node, MADE) if node.ctx == "load" else node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        return _filter(node, MADE) if isinstance(node.arg, nodes.Slice) else node


def _filter(node: nodes.Node, name: str, *args: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(node, name, list(args), [], None, None, lineno=node.lineno)


def _pays(value: Any, cost: int) -> Any:
    _budget.get().spend(cost)
    return value


def _made(value: Any) -> Any:
    """Pays for a value that is new: for a list, whatever hangs on it."""
    _pay(value, texts=isinstance(value, str))
    return value


def _shown(value: Any) -> Any:
    """Pays for the text that a value becomes."""
    _pay(value, texts=True)
    return value


def _pay(value: Any, *, texts: bool) -> None:
    budget, waiting = _budget.get(), [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            budget.spend(len(value) if texts else 1)
        elif isinstance(value, list | tuple):
            budget.spend(ELEMENT * len(value))
            waiting.extend(value)
        elif isinstance(value, dict):
            budget.spend(2 * ELEMENT * len(value))
            waiting.extend(itertools.chain.from_iterable(value.items()))
        elif isinstance(value, int) and value.bit_length() > MOST_BITS:
            raise SecurityError("a number is too large")


def _paid(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def paid(*args: Any, **kwargs: Any) -> Any:
        _budget.get().spend(TURN)
        return _made(function(*args, **kwargs))

    return paid


def _weigh_product(left: Any, right: Any) -> None:
    for value, times in ((left, right), (right, left)):
        if isinstance(value, str | list | tuple) and isinstance(times, int):
            _budget.get().spend(len(value) * max(times, 0))


def _raise(message: str) -> None:
    raise TemplateError(message)


def _text(value: Any) -> str:
    return str(_shown(value))


def _join(values: Iterable[Any], between: str = "", attribute: str | None = None) -> str:
    if attribute is not None:
        raise SecurityError("join takes no attribute here")
    texts = []
    for value in values:
        _budget.get().spend(len(between) + ELEMENT)
        texts.append(_text(value))
    return between.join(texts)


def _replace(text: Any, old: str, new: str, count: int | None = None) -> str:
    text, old, new = _text(text), _text(old), _text(new)
    _budget.get().spend(text.count(old) * len(new))
    return str(text.replace(old, new, -1 if count is None else count))


def _indent(text: str, width: int = 4, first: bool = False, blank: bool = False) -> str:
    """Jinja's, for a width in blanks."""
    if not 0 <= width <= MOST_INDENT:
        raise SecurityError(f"an indent must be from 0 to {MOST_INDENT}")
    margin, lines = " " * width, _text(text).split("\n")
    _budget.get().spend((width + ELEMENT) * len(lines))
    behind = [margin + line if line or blank else line for line in lines[1:]]
    return "\n".join([margin + lines[0] if first else lines[0], *behind])


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Hugging Face's, which escapes nothing for HTML."""
    if indent is not None and not 0 <= indent <= MOST_INDENT:
        raise SecurityError(f"an indent must be from 0 to {MOST_INDENT}")
    _pay(value, texts=True)
    return str(
        _made(json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys))
    )
