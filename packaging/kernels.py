"""Names of the Metal kernels and parameters of MLX that the engine needs in MLX's macOS wheels.

MLX looks a kernel up by name when an operation first runs; a missing one ends the worker in the
middle of an answer. `packaging/wheels.py` calls this for each build. A test fails when the lock has
another MLX than the tables were read from.
"""

import ast
import struct
from collections.abc import Iterator, Mapping

# The names come from this version's macOS wheels (2026-11-30). For another version: see which
# kernels mlx/backend/metal/{scaled_dot_product_attention,quantized}.cpp look up, correct the
# tables, then this line.
READ_FROM_MLX = "0.32.4"

# The two spellings of 16-bit types in kernel names.
TYPES = {"float16": "float16_t", "bfloat16": "bfloat16_t"}

# Prefill (engine/model/kv_cache.py, more than 8 tokens), by head dim.
# "bk": keys in a block, "wn": simdgroups across.
PREFILL = {64: "bk32 wn1", 72: "bk32 wn1", 80: "bk32 wn1", 96: "bk32 wn1", 128: "bk16 wn1"}
# With force_fused=True only: on M1 to M4, MLX otherwise keeps these heads' scores in memory.
PREFILL_FORCED = {256: "bk16 wn2"}
# For M5, in the build for macOS 26.
PREFILL_NAX = {64: "bk32 wn1", 96: "bk32 wn1", 128: "bk32 wn1", 256: "bk32 wn1"}
# Decode: heads of 72 and 80 have no kernel; MLX composes other operations.
DECODE = (64, 96, 128, 256)

# The cache in 8 and 4 bits: groups of 64, or of 32 if the head dim is no multiple of 64
# (engine/planning/memory_plan.py).
KV_GROUPS = ((64, 8), (64, 4), (32, 8), (32, 4))
# Weights of mlx-community's models: affine 4 and 8 bits; gpt-oss's experts are mxfp4.
WEIGHTS = (("affine", 64, 4), ("affine", 64, 8), ("affine", 32, 4), ("mxfp4", 32, 4))

PARAMETERS: Mapping[tuple[str, str], str] = {
    ("mlx/core/fast.pyi", "scaled_dot_product_attention"): (
        "q k v scale mask sinks force_fused stream"
    ),
    ("mlx/core/__init__.pyi", "quantize"): "w group_size bits mode global_scale stream",
    ("mlx/core/__init__.pyi", "dequantize"): (
        "w scales biases group_size bits mode global_scale dtype stream"
    ),
    ("mlx/core/__init__.pyi", "quantized_matmul"): (
        "x w scales biases transpose group_size bits mode stream"
    ),
    ("mlx/core/__init__.pyi", "hadamard_transform"): "a scale stream",
    ("mlx/core/__init__.pyi", "device_info"): "d",
    ("mlx/core/__init__.pyi", "set_memory_limit"): "limit",
    ("mlx/core/__init__.pyi", "set_cache_limit"): "limit",
    ("mlx/core/__init__.pyi", "set_wired_limit"): "limit",
}


def needed(*, has_nax: bool) -> set[str]:
    """Return the kernels that the engine may use.

    has_nax: the build supports M5's matrix units (macOS 26).
    """
    names: set[str] = set()
    for plain, suffixed in TYPES.items():
        names.update(_prefill(plain, has_nax=has_nax))
        names.update(_elementwise(plain))
        names.update(_decode(suffixed))
        names.update(_quantized_cache(suffixed))
        names.update(_quantized_weights(suffixed))
        names.update(_quantized_weights_nax(suffixed) if has_nax else ())
    return names


def _prefill(kind: str, *, has_nax: bool) -> Iterator[str]:
    prefill = [("bq32", dims) for dims in (PREFILL, PREFILL_FORCED)]
    prefill += [("bq64", PREFILL_NAX)] if has_nax else []
    for rows, dims in prefill:
        for dim, tile in dims.items():
            keys, across = tile.split()
            yield (f"steel_attention_{kind}_{rows}_{keys}_bd{dim}_bv{dim}_wm4_{across}_mask{kind}")


def _decode(kind: str) -> Iterator[str]:
    for dim in DECODE:
        yield f"sdpa_vector_{kind}_{dim}_{dim}"
        yield f"sdpa_vector_2pass_1_{kind}_{dim}_{dim}"
        yield f"sdpa_vector_2pass_2_{kind}_{dim}"


def _elementwise(kind: str) -> Iterator[str]:
    for prefix in ("block_softmax_precise_", "looped_softmax_precise_", "argmax_"):
        yield f"{prefix}{kind}"
    for prefix in ("rms", "rms_looped", "rope_", "rope_single_", "rope_freqs_"):
        yield f"{prefix}{kind}"


def _quantized_cache(kind: str) -> Iterator[str]:
    """Yield kernels of quantizing, dequantizing and products.

    Products with the queries of one token (keys: qmv, values: qvm) and of a few tokens (qmm).
    """
    for group, bits in KV_GROUPS:
        shape = f"{kind}_gs_{group}_b_{bits}"
        yield f"affine_quantize_{shape}"
        yield f"affine_dequantize_{shape}"
        yield f"affine_qmv_{shape}_batch_1_pr_0_hgs_0_r_4"
        yield from (f"affine_qmv_quad_{shape}_d_{dim}_batch_1" for dim in (64, 128))
        yield from (f"affine_qmv_wide_{shape}_nv_{rows}_kl_8_batch_1" for rows in (2, 3, 4, 5))
        yield f"affine_qvm_{shape}_batch_1"
        yield from (f"affine_qvm_split_k_{shape}_spk_{parts}" for parts in (8, 32))
        yield from (f"affine_qmm_t_{shape}_alN_{whole}_batch_1" for whole in ("true", "false"))
        yield f"affine_qmm_n_{shape}_batch_1"


def _quantized_weights(kind: str) -> Iterator[str]:
    """Yield products of weights with a chunk or one token; `gather` is for mixture experts."""
    for mode, group, bits in WEIGHTS:
        shape = f"{kind}_gs_{group}_b_{bits}"
        yield from (f"{mode}_qmm_t_{shape}_alN_{whole}_batch_0" for whole in ("true", "false"))
        yield from (f"{mode}_{one}_{shape}_batch_0_pr_0_hgs_0_r_4" for one in ("qmv", "qmv_fast"))
        yield from (f"{mode}_gather_{one}_{shape}" for one in ("qmv", "qmv_fast"))
        yield from (f"{mode}_gather_qmm_t_{shape}_alN_{whole}" for whole in ("true", "false"))
        yield f"{mode}_gather_qmm_rhs_nt_{shape}_bm_16_bn_32_bk_32_wm_1_wn_2"


def _quantized_weights_nax(kind: str) -> Iterator[str]:
    for mode, group, bits in WEIGHTS:
        shape = f"{kind}_gs_{group}_b_{bits}"
        for whole in ("true", "false"):
            tiles = f"bn64_bk64_wm2_wn2_alN_{whole}"
            yield from (f"{mode}_qmm_t_nax_{shape}_bm{m}_{tiles}_batch_0" for m in (32, 64))
            yield f"{mode}_gather_qmm_t_nax_{shape}_bm64_{tiles}"


def names_in(metallib: bytes) -> set[str]:
    """Return the function names of a Metal library.

    Its header has the offset of a count and of that many entries of tagged fields.
    """
    [start] = struct.unpack_from("<Q", metallib, 24)
    [count] = struct.unpack_from("<I", metallib, start)
    names: set[str] = set()
    position = start + 4
    for _ in range(count):
        [size] = struct.unpack_from("<I", metallib, position)
        tag, chars = struct.unpack_from("<4sH", metallib, position + 4)
        if tag != b"NAME":
            raise ValueError("not a Metal library as MLX 0.32 has it")
        names.add(metallib[position + 10 : position + 10 + chars].rstrip(b"\0").decode())
        position += size
    return names


def parameters_in(stub: str) -> dict[str, str]:
    """Return the ordered parameters of each function in a stub."""
    functions = (node for node in ast.parse(stub).body if isinstance(node, ast.FunctionDef))
    parameters: dict[str, str] = {}
    for function in functions:
        args = function.args
        every = (*args.posonlyargs, *args.args, *args.kwonlyargs)
        parameters.setdefault(function.name, " ".join(one.arg for one in every))
    return parameters


def changed_parameters(stubs: Mapping[str, str]) -> Iterator[str]:
    """Yield functions whose parameters differ from the engine's calls.

    stubs: their text, by path in the wheel.
    """
    functions = {path: parameters_in(text) for path, text in stubs.items()}
    for (path, name), expected in PARAMETERS.items():
        actual = functions[path].get(name)
        if actual != expected:
            yield f"{path}: {name}({actual}), and the engine was written for ({expected})"
