"""Program that runs in the doctor's job and collects facts.

Its source is run by any Python that the job has, so it uses only the standard library, and only
the syntax of old Python versions. Each section of facts is one line of JSON. It is sent at once:
through a connection to the doctor, and in a file of the shared directory. A section that does not
arrive is a finding too.
"""

# mypy: ignore-errors
# ruff: noqa: C402, UP

import json
import os
import socket
import sys
import threading
import time

CONNECT_SECONDS = 10.0
IMPORT_SECONDS = 120.0
GPU_SECONDS = 90.0
LINGER_SECONDS = 30.0  # for the doctor to connect: a slow file may bring it the address


def main(ask):
    """Collect and send all sections.

    ask : dict of token, addresses (of the doctor, each ``[name, host]``), port, interface, folder
    (shared), facts (a file, or None), modules (to import), gpu (True: compute on GPUs).
    """
    teller = FactReporter(ask)
    listener = EchoServer(ask["token"])
    teller.tell("hello", hello, ask, listener, teller)
    if ask["folder"]:
        teller.tell("shared", shared, ask)
    teller.tell("limits", limits)
    teller.tell("scratch", scratch)
    teller.tell("python", within, IMPORT_SECONDS, python, ask)
    if ask["gpu"]:
        teller.tell("gpu", within, GPU_SECONDS, gpu)
    if ask["addresses"]:
        listener.called.wait(LINGER_SECONDS)
    teller.tell("end", lambda: {"called": listener.called.is_set()})
    sys.stdout.flush()
    os._exit(0)  # a thread may hang in a driver


class FactReporter:
    """Sender of facts, through the connection and the file, if they work."""

    def __init__(self, ask):
        self.token, self.facts = ask["token"], ask["facts"]
        self.reached, self.comm = [], None
        for name, host in ask["addresses"]:
            began = time.time()
            try:
                comm = socket.create_connection((host, ask["port"]), CONNECT_SECONDS)
                comm.sendall((json.dumps({"token": self.token}) + "\n").encode())
                error = ""
            except Exception as caught:
                comm, error = None, str(caught)
            seconds = time.time() - began
            self.reached.append({"name": name, "host": host, "error": error, "seconds": seconds})
            if self.comm is None:
                self.comm = comm
            elif comm is not None:
                comm.close()

    def tell(self, section, look, *arguments):
        try:
            found = look(*arguments)
        except BaseException as error:
            found = {"error": named(error)}
        found["section"], found["at"] = section, time.time()
        line = json.dumps(found) + "\n"
        if self.comm is not None:
            try:
                self.comm.sendall(line.encode())
            except Exception:
                self.comm = None
        try:
            if self.facts:
                with open(self.facts, "a") as file:
                    file.write(line)
                    file.flush()
                    os.fsync(file.fileno())
        except Exception:
            pass  # the directory is not shared; its own section reports that


class EchoServer:
    """Server that waits for a connection, as a Dask worker would."""

    def __init__(self, token):
        self.token, self.called = token, threading.Event()
        self.server = socket.socket()
        self.server.bind(("", 0))
        self.server.listen(8)
        self.port = self.server.getsockname()[1]
        thread = threading.Thread(target=self.answer)
        thread.daemon = True
        thread.start()

    def answer(self):
        while True:
            comm, _ = self.server.accept()
            try:
                comm.settimeout(CONNECT_SECONDS)
                if comm.makefile("r").readline().strip() == self.token:
                    reply = {"token": self.token, "at": time.time()}
                    comm.sendall((json.dumps(reply) + "\n").encode())
                    self.called.set()
            except Exception:
                pass
            finally:
                comm.close()


def named(error):
    return f"{type(error).__name__}: {error}"


def within(seconds, look, *arguments):
    """Return the result of a function, or an error if it takes too long."""
    found = []

    def run():
        try:
            found.append(look(*arguments))
        except BaseException as error:
            found.append({"error": named(error)})

    thread = threading.Thread(target=run)
    thread.daemon = True
    thread.start()
    thread.join(seconds)
    return found[0] if found else {"error": f"it did not finish within {seconds:.0f} seconds"}


def hello(ask, listener, teller):
    names = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")
    names += ("ZE_AFFINITY_MASK", "GPU_DEVICE_ORDINAL", "SLURM_JOB_ID", "SLURMD_NODENAME")
    found = {
        "host": socket.gethostname(),
        "executable": sys.executable,
        "version": ".".join(str(number) for number in sys.version_info[:3]),
        "environment": dict((name, os.environ[name]) for name in names if name in os.environ),
        "reached": teller.reached,
        "addresses": [],
        "port": listener.port,
    }
    try:
        found["addresses"] = addresses(ask)
    except Exception as error:
        found["address_error"] = str(error)
    return found


def addresses(ask):
    """Return the address that a Dask worker here would announce."""
    if ask["interface"]:
        try:
            return [address_of(ask["interface"])]
        except Exception as error:
            there = ", ".join(name for _, name in socket.if_nameindex())
            raise RuntimeError(f"{ask['interface']}: {error}; this node has {there}") from error
    found = []
    for _, host in ask["addresses"]:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as comm:
            try:
                comm.connect((host, 9))
                found.append(comm.getsockname()[0])
            except Exception:
                pass
    return found[:1]


def address_of(interface):
    import fcntl
    import struct

    get_address = 0x8915  # SIOCGIFADDR
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as comm:
        packed = struct.pack("256s", interface[:15].encode())
        return socket.inet_ntoa(fcntl.ioctl(comm.fileno(), get_address, packed)[20:24])


def shared(ask):
    folder, found = ask["folder"], {}
    found["there"] = os.path.isdir(folder)
    try:
        with open(os.path.join(folder, "here")) as file:
            found["same"] = file.read() == ask["token"]
    except Exception as error:
        found["read_error"] = str(error)
    try:
        with open(os.path.join(folder, "there"), "w") as file:
            file.write(ask["token"])
            file.flush()
            os.fsync(file.fileno())
    except Exception as error:
        found["write_error"] = str(error)
    found["type"] = type_of(folder)
    return found


def limits() -> dict:
    import resource

    found = {}
    for name in ("NOFILE", "NPROC", "CPU", "AS"):
        limit = getattr(resource, "RLIMIT_" + name, None)
        if limit is not None:
            pair = resource.getrlimit(limit)
            found[name] = [None if n == resource.RLIM_INFINITY else n for n in pair]
    return found


def scratch():
    """Examine the directory that Dask's workers use for temporary files."""
    import tempfile

    found = {"path": tempfile.gettempdir()}
    for name in ("SLURM_TMPDIR", "TMPDIR"):
        if os.environ.get(name):
            found["name"], found["path"] = name, os.environ[name]
            break
    try:
        with tempfile.TemporaryFile(dir=found["path"]) as file:
            file.write(b"0" * 1000000)
            file.flush()
        room = os.statvfs(found["path"])
        found["free"] = room.f_bavail * room.f_frsize
    except Exception as error:
        found["write_error"] = str(error)
    found["type"] = type_of(found["path"])
    return found


def type_of(path: str) -> str:
    """Return the type of a path's file system, as the kernel names it."""
    best, kind = "", ""
    path = os.path.realpath(path)
    try:
        with open("/proc/self/mountinfo") as file:
            for line in file:
                left, _, right = line.partition(" - ")
                mount = left.split()[4].replace("\\040", " ")
                inside = path == mount or path.startswith(mount.rstrip("/") + "/")
                if inside and len(mount) >= len(best):
                    best, kind = mount, right.split()[0]
    except Exception:
        pass
    return kind


def python(ask):
    """Import what a worker needs, and return versions and errors."""
    import importlib

    versions, errors, began = {}, {}, time.time()
    for name in ask["modules"]:
        try:
            versions[name] = getattr(importlib.import_module(name), "__version__", "?")
        except BaseException as error:
            errors[name] = named(error)
    found = {"versions": versions, "errors": errors, "seconds": time.time() - began}
    if "daskhpo" in versions:
        found["folder"] = os.path.dirname(sys.modules["daskhpo"].__file__)
        found["digest"] = digest(found["folder"])
    if "distributed" in versions:
        from distributed.system import MEMORY_LIMIT

        found["memory"] = MEMORY_LIMIT
    return found


def digest(folder: str) -> str:
    """Return a short hash of all source files of a package."""
    import hashlib

    found = hashlib.sha1()
    for place, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            if name.endswith(".py"):
                found.update(os.path.relpath(os.path.join(place, name), folder).encode())
                with open(os.path.join(place, name), "rb") as file:
                    found.update(file.read())
    return found.hexdigest()[:10]


def gpu():
    """Compute on each GPU, with the first installed library that finds one."""
    found = {"driver": os.path.exists("/proc/driver/nvidia/version") or os.path.exists("/dev/kfd")}
    tried = found["tried"] = {}
    for name, compute in (("torch", with_torch), ("cupy", with_cupy), ("jax", with_jax)):
        try:
            __import__(name)
        except ImportError:
            continue
        except BaseException as error:
            tried[name] = {"problem": "fails: " + named(error)}
            continue
        began = time.time()
        try:
            tried[name] = compute()
        except BaseException as error:
            tried[name] = {"problem": "fails: " + named(error)}
        tried[name]["seconds"] = time.time() - began
        if tried[name].get("devices"):
            break
    return found


def with_torch():
    import torch

    built = torch.version.cuda or getattr(torch.version, "hip", None)
    result = {"version": torch.__version__, "devices": []}
    if not built:
        result["missing"] = "is built for CPUs only"
    elif not torch.cuda.is_available():
        result["problem"] = "finds no device"
    else:
        for number in range(torch.cuda.device_count()):
            there = torch.rand(256, 256, dtype=torch.float64, device=f"cuda:{number}")
            here = there.cpu()
            agrees = torch.allclose((there @ there).cpu(), here @ here)
            result["devices"].append(
                {"name": torch.cuda.get_device_name(number), "agrees": bool(agrees)}
            )
    return result


def with_cupy():
    import cupy
    import numpy

    result = {"version": cupy.__version__, "devices": []}
    for number in range(cupy.cuda.runtime.getDeviceCount()):
        with cupy.cuda.Device(number):
            there = cupy.random.rand(256, 256)
            here = cupy.asnumpy(there)
            agrees = numpy.allclose(cupy.asnumpy(there @ there), here @ here)
            name = cupy.cuda.runtime.getDeviceProperties(number)["name"].decode()
            result["devices"].append({"name": name, "agrees": bool(agrees)})
    return result


def with_jax():
    import jax
    import numpy

    result = {"version": jax.__version__, "devices": []}
    for device in jax.devices():
        if device.platform in ("gpu", "cuda", "rocm"):
            here = numpy.linspace(0, 1, 65536, dtype="float32").reshape(256, 256)
            there = jax.device_put(here, device)
            agrees = numpy.allclose(numpy.asarray(there @ there), here @ here, rtol=0.02)
            result["devices"].append({"name": device.device_kind, "agrees": bool(agrees)})
    if not result["devices"]:
        result["missing"] = "finds no device"  # it may be a build for CPUs
    return result
