"""The command.

python bench/cost_model                                     # fits to stored times; errors on unseen layers
python bench/cost_model --predict "256,256,14x14,3x3/1" --zeros .7 --threads 16
python bench/cost_model --network resnet50 --cores 16 32 64 # extrapolated, not measured
python bench/cost_model --cluster resnet50 --cores 16       # the same with all-reduces between machines
"""

import argparse
import sys
from pathlib import Path

if not __package__:  # run by its folder's name; `python -m bench.cost_model` knows the package
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from bench.cost_model.calls import BATCH, PASSES, work
from bench.cost_model.errors import constant_table, error_table, pass_table, save_picture, worst_lines
from bench.cost_model.fitting import fitted, predict
from bench.cost_model.processors import PROCESSORS, Processor
from bench.cost_model.scaling import NOT_MEASURED, PARAMETERS, cluster_table, network_table
from sparseconv.benchmark.layers import Layer, parse


def prediction_lines(layer: Layer, zeros: float, cpu: Processor, threads: int, batch: int) -> list[str]:
    """What a layer takes in each pass, and of what that is made."""
    how = "on one thread" if threads == 1 else f"on {threads} threads, {NOT_MEASURED}"
    lines = [f"{layer}, {zeros:.0%} zeros, batch {batch}, {cpu.name}, {how}"]
    for which in PASSES:
        done = work(layer, which, zeros, cpu, threads, batch)
        call = predict(done, fitted(cpu), cpu)
        total = sum(call.parts.values())
        parts = sorted(call.parts.items(), key=lambda part: -part[1])
        why = ", ".join(f"{name} {seconds / total:.0%}" for name, seconds in parts if seconds >= 0.02 * total)
        bound = f"; {call.cores:.1f} cores busy, bound by {call.bound}" if threads > 1 else ""
        lines.append(f"  {which:15} {1e3 * call.seconds:9.3f} ms  {done.kernel:15} {why}{bound}")
    return lines


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    processors = {cpu.folder: cpu for cpu in PROCESSORS}
    parser = argparse.ArgumentParser("python bench/cost_model", description="The time of a layer on paper.")
    parser.add_argument("--cpu", choices=processors, default="zen5", help="for what is asked; tables have all")
    parser.add_argument("--predict", metavar="LAYER", help='such as "256,256,14x14,3x3/1"')
    parser.add_argument("--zeros", type=float, default=0.0, help="share of zeros for --predict")
    parser.add_argument("--threads", type=int, default=1, help="for --predict")
    parser.add_argument("--network", choices=PARAMETERS, help="steps on --cores of one socket")
    parser.add_argument("--cluster", choices=PARAMETERS, help="steps on machines of --cores, with all-reduces")
    parser.add_argument("--cores", type=int, nargs="+", default=[16, 32, 64])
    parser.add_argument("--batch", type=int, help=f"images; default: {BATCH}, with --network and --cluster 64")
    parser.add_argument("--bandwidth", type=float, help="of a socket's memory, GB/s, in place of the assumed one")
    parser.add_argument("--plot", type=Path, help="where to save the picture of errors")
    options = parser.parse_args(arguments)
    cpu, batch = processors[options.cpu], 64 if options.batch is None else options.batch
    if options.bandwidth is not None:
        if options.bandwidth <= 0:
            parser.error(f"--bandwidth: got {options.bandwidth}, expected GB/s above 0")
        cpu = cpu._replace(memory=1e9 * options.bandwidth)
    if min(options.cores) < 1:
        parser.error(f"--cores: got {min(options.cores)}, expected at least 1")
    try:
        if options.predict:
            layer = parse(options.predict)
            batch = layer.batch or BATCH if options.batch is None else options.batch
            lines = prediction_lines(layer, options.zeros, cpu, options.threads, batch)
        elif options.network:
            lines = network_table(options.network, options.cores, cpu, batch)
        elif options.cluster:
            lines = cluster_table(options.cluster, options.cores, cpu, batch)
        else:
            lines = [*constant_table(), *error_table(), *pass_table()]
            lines += [line for processor in PROCESSORS for line in worst_lines(processor)]
    except ValueError as error:
        parser.error(str(error))
    print("\n".join(lines))
    if options.plot:
        save_picture(options.plot)


if __name__ == "__main__":
    main()
