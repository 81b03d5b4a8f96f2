"""Compilers of the frozen trunk: OpenVINO and torch's own inductor, each for batches of one shape."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx

from regraft.backbone.stages import Batch
from regraft.backbone.state import State, as_state, leaves, thin, tree
from regraft.backbone.view import View
from regraft.kit import hardware, optional

Pass = Callable[[Batch], State]


class Compiler(NamedTuple):
    """`compile(view, k, batch, in_half)` gives a pass below k for batches of this shape, or raises what it likes.

    `cost_s` is what it is expected to take before one was measured; `package` is the one whose version decides bits.
    """

    compile: Callable[[View, int, Batch, bool], Pass]
    cost_s: float
    package: str


def inductor(view: View, k: int, batch: Batch, in_half: bool) -> Pass:
    """The trunk compiled with `torch.compile`, its weights folded in; in float32, also where the engine is in half.

    Raises: RuntimeError, or another of torch's errors: the network decides by values, or there is no C++ compiler.
    """
    hardware.compile_apart()
    with torch.no_grad():
        graph, state = _traced(view, k, batch)
        work: Any = torch.compile(graph, dynamic=False, options={"freezing": True, "fx_graph_cache": False})
        run = _pass(lambda given: work(*given), list(batch), state)
        run(batch)
    return run


def openvino(view: View, k: int, batch: Batch, in_half: bool) -> Pass:
    """The trunk compiled with OpenVINO in memory: float32, or bfloat16 where the engine is in half; torch's threads.

    The frontend is called directly: `openvino.convert_model` reports every conversion to its makers.

    Raises: ImportError: OpenVINO is absent or broken; RuntimeError, or one of its own: it cannot convert the network.
    """
    if broken := optional.trouble("openvino"):
        raise ImportError(broken)
    from openvino import compile_model
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.fx_decoder import TorchFXPythonDecoder

    with torch.no_grad():
        graph, state = _traced(view, k, batch)
        decoder = TorchFXPythonDecoder(graph)  # must outlive the conversion, and holds the weights
        frontend = FrontEndManager().load_by_framework("pytorch")
        made = frontend.convert(frontend.load(decoder))
        made.reshape({i: list(tensor.shape) for i, tensor in enumerate(batch.values())})
        settings = {
            "INFERENCE_PRECISION_HINT": "bf16" if in_half else "f32",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": False,
        }
        work = compile_model(made, "CPU", settings)
        kinds = [leaf.dtype for leaf in leaves(state.value)]

        def run(given: Sequence[Tensor]) -> list[Tensor]:
            outputs = work([tensor.contiguous().numpy() for tensor in given]).to_tuple()
            return [torch.from_numpy(out).to(kind) for out, kind in zip(outputs, kinds, strict=True)]

    return _pass(run, list(batch), state, decoder)


COMPILERS = {"openvino": Compiler(openvino, 3.0, "openvino"), "inductor": Compiler(inductor, 40.0, "torch")}
"""Expected seconds: on two cores OpenVINO takes 1 to 3 s for MiniLM, MobileNetV2 or ResNet-18, inductor 10 to 45 s."""


def expected() -> dict[str, float]:
    """Each compiler that is installed, with the seconds that it is expected to take."""
    return {name: one.cost_s for name, one in COMPILERS.items() if importlib.util.find_spec(one.package)}


def mark(name: str) -> str:
    """A compiler with the version of what it comes from, as the cache tells its states apart."""
    package = COMPILERS[name].package
    try:
        return f"{name} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        return f"{name} absent"


def _traced(view: View, k: int, batch: Batch) -> tuple[fx.GraphModule, State]:
    """The trunk as a graph from the batch's tensors to those of its state; and the state itself.

    Traced with tensors that have shapes but no values, so that nothing of this batch is in the graph.
    """
    from torch.fx.experimental.proxy_tensor import make_fx

    names, state = list(batch), as_state(view.run(batch, stop=k), batch)

    def flat(*tensors: Tensor) -> list[Tensor]:
        given = dict(zip(names, tensors, strict=True))
        return leaves(as_state(view.run(given, stop=k), given).value)

    return make_fx(flat, tracing_mode="fake", _allow_non_fake_inputs=True)(*batch.values()), state


def _pass(run: Callable[[Sequence[Tensor]], Sequence[Tensor]], names: list[str], like: State, held: Any = None) -> Pass:
    """A function from tensors to tensors as one from batches to states; `held` lives as long as it does."""

    def passed(batch: Batch) -> State:
        made = iter(run([batch[name] for name in names]))
        return State(tree(lambda _: next(made), like.value), like.seen, {n: thin(v) for n, v in batch.items()})

    return passed
