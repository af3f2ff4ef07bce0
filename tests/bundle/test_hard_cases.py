"""The hard cases of capture: the class of the bundle, in a clean process, answers as the kernel's does."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

START = "import torch, nbserve\nfrom torch import nn"
ROWS = [[0.0, 1.0, 2.0], [3.0, -1.0, 0.5]]


def served(body: str) -> str:
    """A handler whose `handle` is `body`."""
    return "class Served(nbserve.Handler):\n    def handle(self, requests, context):\n" + textwrap.indent(body, " " * 8)


EACH = "return [{} for row in requests]"

CASES: dict[str, list[str]] = {
    "star import": ["from math import *", served(EACH.format("sqrt(row[1] ** 2) + floor(pi)"))],
    "aliased import": ["import math as m\nfrom math import hypot as h", served(EACH.format("h(*row[:2]) + m.e"))],
    "class beside the imports of its cell": [
        "import math\n" + served(EACH.format("math.hypot(row[0], y=row[1]) if row[0] < -9 else math.floor(row[1])")),
    ],
    "submodule import": ["import xml.dom.minidom", served(EACH.format("xml.dom.minidom.parseString('<a/>').nodeName"))],
    "import inside a function": [
        "def deep(row):\n    import statistics\n    from collections import Counter\n    return statistics.mean(row) + len(Counter(row))",
        served(EACH.format("deep(row)")),
    ],
    "redefined base class": [
        "class Base(nbserve.Handler):\n    def scale(self): return 2.0",
        "class Served(Base):\n    def handle(self, requests, context):\n        return [row[1] * self.scale() for row in requests]",
        "class Base:\n    def scale(self): return 99.0\ndef other(): return Base().scale()",
    ],
    "redefined base class, both needed": [
        "class Base(nbserve.Handler):\n    factor = 2.0\n    def scale(self): return self.factor",
        "class Served(Base):\n    def handle(self, requests, context):\n        return [row[1] * self.scale() + other() for row in requests]",
        "class Base:\n    def scale(self): return 99.0",
        "def other(): return Base().scale()",
    ],
    "class that derives from its own old self": [
        "class Served(nbserve.Handler):\n    def handle(self, requests, context):\n        return [self.one(row) for row in requests]\n    def one(self, row): return row[0]",
        "class Served(Served):\n    def one(self, row): return super().one(row) + 1",
    ],
    "decorator factory": [
        "def times(n):\n    def decorate(f):\n        def wrapper(*args):\n            return n * f(*args)\n        return wrapper\n    return decorate",
        "FACTOR = 3\n@times(FACTOR)\ndef total(row):\n    return sum(row)",
        served(EACH.format("total(row)")),
    ],
    "lru_cache": [
        "import functools\n@functools.lru_cache(maxsize=8)\ndef slow(x):\n    return x * x",
        served(EACH.format("slow(row[0])")),
    ],
    "dataclass": [
        "from dataclasses import dataclass, field\n@dataclass\nclass Config:\n    scale: float = 2.0\n    names: list[str] = field(default_factory=lambda: ['a'])",
        "config = Config(scale=3.0, names=['x', 'y'])",
        served(EACH.format("[row[0] * config.scale, config.names, Config().scale]")),
    ],
    "closure": [
        "def make(n, names):\n    def add(x):\n        return x + n + len(names)\n    return add\nadd = make(5, ['p', 'q'])",
        served(EACH.format("add(row[0])")),
    ],
    "recursive closure": [
        "def make(step):\n    def down(x):\n        return 0 if x <= 0 else 1 + down(x - step)\n    return down\ndown = make(0.5)",
        served(EACH.format("down(row[0])")),
    ],
    "lambdas": [
        "double = lambda x: 2 * x; half = lambda x: x / 2\nsteps = {'a': lambda x: x + 1, 'b': lambda x: x + 10}",
        served(EACH.format("[double(row[0]), half(row[0]), steps['a'](1), steps['b'](1)]")),
    ],
    "lambda closure": [
        "def make(n):\n    return lambda x: (\n        x * n)\ntriple = make(3)",
        served(EACH.format("triple(row[0])")),
    ],
    "class attribute from a global": [
        "LIMIT = 0.5",
        "class Served(nbserve.Handler):\n    limit = LIMIT * 2\n    def handle(self, requests, context):\n        return [[x > self.limit for x in row] for row in requests]",
    ],
    "model = model in a class body": [
        "torch.manual_seed(1)\nmodel = nn.Linear(3, 2)",
        "class Served(nbserve.Handler):\n    model = model",
    ],
    "a class named Out": [
        "class Out:\n    def __init__(self, v): self.v = v\n    def get(self): return self.v + 1\nout = Out(4)",
        served(EACH.format("out.get() + Out(1).get() + row[0]")),
    ],
    "typing objects": [
        "from typing import Any, NamedTuple, NewType, Optional, TypeVar, Union, Generic\nT = TypeVar('T')\nPair = tuple[int, int]\nRow = list[float]\nUserId = NewType('UserId', int)\nMaybe = Optional[Row]\n"
        "class Box(Generic[T]):\n    def __init__(self, v: T) -> None: self.v = v\nclass Point(NamedTuple):\n    x: int\n    y: int = 2\nbox = Box(3)\npoint = Point(1)",
        "def first(row: Row) -> Union[float, Pair]:\n    return row[0] + UserId(1) + box.v + point.y",
        served(EACH.format("[first(row), str(Maybe), str(T)]")),
    ],
    "string annotations": [
        "class Config:\n    size = 4",
        "def grow(row: 'Config', more: 'list[Missing]' = None) -> 'Config':\n    return row[0] + Config.size",
        served(EACH.format("grow(row)")),
    ],
    "future annotations": [
        "from __future__ import annotations\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from nowhere import Nothing\ndef f(x: Nothing) -> Nothing:\n    return x[0]",
        served(EACH.format("[f(row), f.__annotations__]")),
    ],
    "default arguments": [
        "BIAS = 1.5\nweights = torch.tensor([1.0, 2.0, 3.0])\ndef score(row, bias=BIAS, *, w=weights):\n    return float((torch.tensor(row) * w).sum() + bias)",
        served(EACH.format("score(row)")),
    ],
    "metaclass": [
        "class Meta(type):\n    def __new__(m, name, bases, space):\n        space['tag'] = name.lower()\n        return super().__new__(m, name, bases, space)\nclass Thing(metaclass=Meta):\n    pass",
        served(EACH.format("Thing.tag + type(Thing).__name__")),
    ],
    "global": [
        "count = 10\ndef tick():\n    global count, fresh\n    count += 1\n    fresh = count\n    return fresh",
        served(EACH.format("tick()")),
    ],
    "match": [
        "def kind(row):\n    match row:\n        case [0.0, x, *_]:\n            return ['zero', x]\n        case _:\n            return LABEL\nLABEL = 'other'",
        served(EACH.format("kind(row)")),
    ],
    "sklearn object": [
        "from sklearn.linear_model import LogisticRegression\nclf = LogisticRegression().fit([[0.0, 0, 0], [1, 1, 1]], [0, 1])",
        served("return clf.predict_proba(requests).tolist()"),
    ],
    "numpy arrays": [
        "import numpy as np\nrng = np.random.default_rng(0)\nsmall = rng.normal(size=3)\nlarge = rng.normal(size=(300, 100))\nfortran = np.asfortranarray(rng.normal(size=(200, 50)))\nmask = np.array([True, False, True])\nhalf = np.float32(0.5)",
        served(
            EACH.format(
                "[float(small @ row), float(large.sum()), float(fortran[3, 4]), mask.tolist(), float(half), float(np.exp(row[0]))]"
            )
        ),
    ],
    "tensors": [
        "torch.manual_seed(0)\nmean = torch.randn(3)\nview = mean[1:]\nints = torch.arange(4)\nbf = torch.randn(2, 2).bfloat16()\nt = torch.randn(3, 4).t()\nsliced = torch.randn(1000)[10:13]\nempty = torch.empty(0, 3)\nscalar = torch.tensor(3.5)\ncomplex_ = torch.tensor([1 + 2j])\nlast = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)",
        "class Served(nbserve.Handler):\n    def handle(self, requests, context):\n        mean[2] = 7.0\n        shared = float(view[1])\n        return [[mean.tolist(), shared, ints.tolist(), bf.float().tolist(), t.tolist(), list(t.stride()), sliced.tolist(), list(empty.shape), float(scalar), float(complex_.imag), list(last.stride()), float(last.sum())]]",
    ],
    "nn.Module": [
        "torch.manual_seed(0)\nSIZE = 3\nclass Block(nn.Module):\n    def __init__(self):\n        super().__init__()\n        self.lin = nn.Linear(SIZE, SIZE)\n    def forward(self, x):\n        return helper(self.lin(x))\ndef helper(x): return torch.relu(x) + OFFSET\nOFFSET = 0.25",
        "net = nn.Sequential(Block(), nn.BatchNorm1d(3), nn.Dropout(0.5), Block()).eval()",
        "class Served(nbserve.Handler):\n    def initialize(self, context):\n        self.model = net",
    ],
    "tied and shared weights, buffers": [
        "torch.manual_seed(0)\nclass Tied(nn.Module):\n    def __init__(self):\n        super().__init__()\n        self.emb = nn.Embedding(5, 4)\n        self.out = nn.Linear(4, 5, bias=False)\n        self.out.weight = self.emb.weight\n        self.register_buffer('kept', torch.arange(3.0))\n        self.register_buffer('lost', torch.full((2,), 6.0), persistent=False)\n        self.frozen = nn.Parameter(torch.ones(1), requires_grad=False)\n        self.plain = torch.tensor([2.0])\nnet = Tied()\nencoder = net.emb\nweight = net.out.weight",
        "class Served(nbserve.Handler):\n    def handle(self, requests, context):\n        with torch.no_grad():\n            weight[0, 0] = 42.0\n        out = net.out(net.emb(torch.tensor([1])))\n        return [[net.out.weight is net.emb.weight is weight, encoder is net.emb, net.lost.tolist(), net.kept.tolist(), net.frozen.requires_grad, net.emb.weight.requires_grad, isinstance(weight, nn.Parameter), list(net.state_dict()), out.tolist(), float(net.plain)]]",
    ],
    "quantised module": [
        "import warnings\ntorch.manual_seed(0)\nwith warnings.catch_warnings():\n    warnings.simplefilter('ignore')\n    net = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval(), {nn.Linear})",
        "class Served(nbserve.Handler):\n    def initialize(self, context):\n        self.model = net",
    ],
    "quantised tensor": [
        "import warnings\nwith warnings.catch_warnings():\n    warnings.simplefilter('ignore')\n    q = torch.quantize_per_tensor(torch.tensor([0.5, 1.0, -1.0]), 0.1, 3, torch.qint8)\n    c = torch.quantize_per_channel(torch.ones(2, 2), torch.tensor([0.1, 0.2]), torch.tensor([0, 1]), 0, torch.qint8)",
        served("return [[q.dequantize().tolist(), c.dequantize().tolist(), str(q.dtype)]]"),
    ],
    "scripted module": [
        "import warnings\nwith warnings.catch_warnings():\n    warnings.simplefilter('ignore')\n    torch.manual_seed(0)\n    net = torch.jit.trace(nn.Linear(3, 2), torch.ones(1, 3))",
        "class Served(nbserve.Handler):\n    def initialize(self, context):\n        import warnings\n        warnings.simplefilter('ignore')\n        self.model = net",
    ],
    "tokenizer": [
        "from tokenizers import Tokenizer\nfrom tokenizers.models import WordLevel\nfrom tokenizers.pre_tokenizers import Whitespace\ntok = Tokenizer(WordLevel({'a': 0, 'b': 1, '?': 2}, unk_token='?'))\ntok.pre_tokenizer = Whitespace()",
        served("return [tok.encode('a b zzz a').ids]"),
    ],
    "magic lines": [
        "%pip install nothing\n!ls -l\nx = 3\nfiles = !ls\n%timeit \\\n   x\nx?\ntext = '''\n%not a magic\n! nor this'''\ny = (7\n  % 4)",
        "%matplotlib inline\ndef f(row):\n    return [row[0] + x, text, y]\n" + served(EACH.format("f(row)")),
    ],
    "stale instance of a redefined class": [
        "class Scale:\n    def __call__(self, x): return 2 * x\nscale = Scale()",
        "class Scale:\n    def __call__(self, x): return 100 * x",
        served(EACH.format("[scale(row[0]), Scale()(row[0])]")),
    ],
    "patched class": [
        "class Thing:\n    n = 0\n    def f(self, x): return x\nthing = Thing()",
        "def faster(self, x): return x + 5\nThing.f = faster\nThing.n += 3",
        served(EACH.format("[thing.f(row[0]), thing.n]")),
    ],
    "decorated methods": [
        "class Served(nbserve.Handler):\n    @torch.inference_mode()\n    def handle(self, requests, context):\n        return [[self.area, self.twice(2), self.named(), torch.is_grad_enabled()]]\n    @property\n    def area(self): return 6\n    @staticmethod\n    def twice(x): return 2 * x\n    @classmethod\n    def named(cls): return cls.__name__",
    ],
    "enum, namedtuple and nested classes": [
        "import enum, collections\nclass Color(enum.Enum):\n    RED = 1\n    BLUE = 2\nPoint = collections.namedtuple('Point', 'x y')\nclass Outer:\n    class Inner:\n        v = 3\nitems = [Color.RED, Point(1, 2), Outer.Inner()]",
        served(EACH.format("[items[0] is Color.RED, items[1].y, isinstance(items[2], Outer.Inner), Color.BLUE.value]")),
    ],
    "partial and bound method": [
        "import functools\nclass Adder:\n    def __init__(self, n): self.n = n\n    def add(self, x): return x + self.n\nadder = Adder(4)\nadd = adder.add\npow3 = functools.partial(pow, exp=3)\ndef scale(k, x): return k * x\nby2 = functools.partial(scale, 2)",
        served(EACH.format("[add(row[0]), pow3(2), by2(row[0])]")),
    ],
    "alias and shared list": [
        "def f(x): return x + 1\ng = f\nnames = ['a']\nsame = names",
        served("same.append('b')\nreturn [[g(1), names, f is g]]"),
    ],
    "definition inside if": [
        "import sys\nif sys.version_info > (3,):\n    def f(x):\n        return '''a\n b''' + str(x)\n    class C:\n        v = 2\nelse:\n    def f(x):\n        return 'old'",
        served(EACH.format("f(row[0]) + str(C.v)")),
    ],
    "mutual recursion and order": [
        "class A:\n    def make(self): return B()\nclass B(A):\n    size = 5\ndef even(n): return n == 0 or odd(n - 1)\ndef odd(n): return n != 0 and even(n - 1)",
        served(EACH.format("[A().make().size, even(4), odd(3)]")),
    ],
    "registry filled by decorators": [
        "OPS = {}\ndef register(name):\n    def put(f):\n        OPS[name] = f\n        return f\n    return put",
        "@register('inc')\ndef inc(x): return x + STEP\nSTEP = 2",
        served(EACH.format("[OPS['inc'](row[0]), inc(row[0])]")),
    ],
    "odd constants": [
        "inf = float('inf')\nnan_list = [float('nan')]\nempty = set()\ntags = frozenset({'b', 'a'})\none = (1,)\nz = 1 + 2j\nraw = b'\\x00'\nnothing = None\nlong_text = 'x' * 10000",
        served(
            "return [[inf > 1, nan_list[0] != nan_list[0], sorted(tags), len(empty), one, z.real, raw.hex(), nothing, len(long_text), __name__ != '']]"
        ),
    ],
    "logger, regex, path": [
        "import logging, re\nfrom pathlib import Path, PurePosixPath\nlogger = logging.getLogger(__name__)\npattern = re.compile(r'(\\d+)')\nplace = PurePosixPath('/tmp/a')",
        served("logger.debug('x')\nreturn [[pattern.findall('a1b22'), str(place / 'b')]]"),
    ],
    "TorchServe handler": [
        "torch.manual_seed(0)\nmodel = nn.Linear(3, 1)\nclass Served:\n    def initialize(self, context): self.model = model\n    def handle(self, data, context):\n        with torch.no_grad():\n            return self.model(torch.tensor(data)).tolist()",
    ],
}


@pytest.mark.parametrize("case", CASES)
def test_the_bundle_answers_as_the_kernel(
    case: str, new_notebook: Callable[[], Any], clean: Callable[[Path, list[Any]], dict[str, Any]]
) -> None:
    notebook = new_notebook()
    notebook.namespace.update(OPS=None) if "registry" in case else None
    notebook.run(START, *(_without_magics(cell) for cell in CASES[case]))
    notebook.namespace["_ih"][2:] = CASES[case]
    bundle = notebook.serve()
    found = clean(bundle.path, ROWS)
    assert "answer" in found, found.get("traceback", "") + (bundle.path / "app.py").read_text()
    assert repr(found["answer"]) == repr(notebook.answer(ROWS)), (bundle.path / "app.py").read_text()


def _without_magics(cell: str) -> str:
    """What IPython would run: here the magics just do nothing."""
    from nbserve.bundle.cells import runnable

    return runnable(cell)
