"""What cuobjdump says of a CUDA object, for the tests of the machine code. It needs nvdisasm
beside it or in PATH."""

import os
import re
import subprocess
from pathlib import Path


def cuobjdump(program: str, option: str, file: str) -> str:
    environment = dict(os.environ)
    environment["PATH"] = f"{Path(program).parent}:{environment['PATH']}"
    return subprocess.run(
        [program, option, file], check=True, capture_output=True, text=True, env=environment
    ).stdout


def functions(text: str) -> dict[str, str]:
    """What follows each `Function : NAME` line, by name."""
    parts = re.split(r"^\s*Function\s*:?\s*(\S+?):?\s*$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2]))
