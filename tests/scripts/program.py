"""A training program that knows nothing of daskhpo: options, lines, a checkpoint."""

import argparse
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, default=0.1)
parser.add_argument("--shift", type=float, default=0.0)
parser.add_argument("--epochs", type=int, default=9)
parser.add_argument("--state", help="file of its checkpoint")
parser.add_argument("--resume", action="store_true")
parser.add_argument("--form", default="text", choices=["text", "json", "csv", "silent"])
parser.add_argument("--log", help="CSV file")
parser.add_argument("--train", type=float, default=0.0, help="seconds, from the second epoch on")
parser.add_argument("--save-after", type=float, default=0.0, help="seconds from report to save")
parser.add_argument("--kill-parent-at", type=int, help="once, if --marker does not exist")
parser.add_argument("--marker")
parser.add_argument("--journal", help="the study's: the parent dies when it tells of a saved state")
parser.add_argument("--child", help="file for the number of a process that never ends")
parser.add_argument("--fail-at", type=int)
parser.add_argument("--config", help="YAML file")
parser.add_argument("--amp", action="store_true")
options = parser.parse_args()

lr = float(os.environ.get("LR", options.lr))
if options.config:
    import yaml

    with open(options.config) as file:
        lr = yaml.safe_load(file)["model"]["lr"]
epoch, w = 0, 1.0
if options.resume:
    with open(options.state) as file:
        epoch, w = json.load(file)
if options.child:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
    with open(options.child, "a") as file:
        file.write(f"{child.pid}\n")
if options.log and not os.path.exists(options.log):
    with open(options.log, "w") as file:
        file.write("epoch,val_loss,note\n")
while epoch < options.epochs:
    epoch += 1
    time.sleep(options.train if epoch > 1 else 0.0)
    w *= 1 - lr
    loss = w + options.shift
    if options.fail_at == epoch:
        sys.exit("no luck today")
    if options.kill_parent_at == epoch and not os.path.exists(options.marker):
        while '"saved"' not in pathlib.Path(options.journal).read_text():
            time.sleep(0.01)
        open(options.marker, "w").close()
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(1000)
    if options.form == "text":
        print(f"Epoch {epoch}/{options.epochs} - train_loss: 0.5 - val_loss: {loss!r}")
    elif options.form == "json":
        print(json.dumps({"epoch": epoch, "val_loss": loss, "name": "x", "val": {"acc": 1 - w}}))
    if options.log:
        with open(options.log, "a") as file:
            file.write(f"{epoch},{loss!r},text\n")
    time.sleep(options.save_after)
    if options.state:  # after it was told: nothing is then left out
        with open(options.state, "w") as file:
            json.dump([epoch, w], file)
