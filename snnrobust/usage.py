"""What the verbs say of themselves."""

USAGE = """\
usage: snnrobust VERB ...

  train [-m] [group=choice ...] [key=value ...]         train, attack, measure; -m sweeps over comma-separated values
  train +sweeps=NAME [launcher=parallel|slurm|ray]      the sweep that sweeps/NAME.yaml describes
  plan +sweeps=NAME                                     its runs, and how far each is; also of -m key=value,value
  search KEY='interval(LOW,HIGH)' KEY=A,B [search....]  trials at the values that look best on validation data
  evaluate checkpoint=RUN [-m] [key=value ...]          attack a saved model again, with other attacks or settings
  evaluate model._target_=package.Net checkpoint=FILE   attack any torch.nn.Module; FILE is its state dict
           [dataset=...] [+model.NAME=VALUE ...]
  convert experiment=CONVERSION [-m] [STAGE.key=value]  a robust ANN, pruned, as a spiking network: stage by stage
  import FORMAT FILE [key=value ...]                    a run from weights that the code of a paper saved
  export RUN [format=sparse|safetensors|nir]            a trained network as a file for other programs
  report DIR ... [--out DIR] [--title TEXT]             tables, figures and one HTML page from any number of runs
  sync [FOLDER] [jobs=4]                                uploads to W&B what was tracked offline
  describe [model=...] [dataset=...]                    layers, shapes, parameters, operations, memory

  train --help     groups and their choices
  --cfg job        print the composed config and stop
  --version
"""

PLAN_USAGE = """\
usage: snnrobust plan [+sweeps=NAME] [-m] [group=choice ...] [key=value ...]

Lists the runs of snnrobust train with the same words, all of them composed and checked, and runs none:

  done       its results are there
  running    a process is at work on it
  failed     it ended with an error; the sweep runs it again
  begun      it was interrupted in its training; the sweep goes on with it
  todo
"""

SEARCH_USAGE = """\
usage: snnrobust search KEY='interval(LOW,HIGH)' KEY=A,B ... [search.key=value ...] [group=choice ...] [key=value ...]

Looks for values with high accuracy on clean and on attacked validation data, and shows the Pareto front. What a key may
be is typed as interval(LOW,HIGH), range(START,STOP,STEP), choice(A,B) or A,B; tag(log,interval(...)) draws on a
logarithmic, tag(int,interval(...)) whole numbers. The same command goes on where it was interrupted.

  search.name=NAME         its folder is runs/searches/NAME (default)
  search.trials=N          in all (20); a larger number later on extends the search
  search.sampler=CHOICE    tpe, nsga2, random or grid
  search.seed=N            of the sampler (0)
  search.objectives=[...]  validation_accuracy, validation_robust_accuracy (these two), validation_loss, sparsity,
                           stored_weights, stored_bytes
  search.over_seeds=[...]  each trial is a run for each of these seeds, and counts by its means
  search.batch=N           trials proposed and run together (1), as with launcher=parallel
  search.startup=N         trials at random before tpe learns from them (10)
  search.population=N      of a generation of nsga2 (20)
"""

IMPORT_USAGE = """\
usage: snnrobust import FORMAT FILE [key=value ...]

Turns the weights in FILE into a run directory that snnrobust evaluate attacks. FORMAT is one of

{formats}

Network, widths and classes follow from the weights, everything else from the paper, unless said otherwise:

  dataset=CHOICE           cifar10, cifar100 or tiny_imagenet by the number of classes; dataset.root=DIR, ...
  model=CHOICE             where several networks have the same weights
  model.pool=max|avg       pooling in the stem of SEW-ResNet
  encoder=CHOICE           and encoder.steps=T, neuron=CHOICE, neuron.KEY=VALUE, ...
  runs=DIR                 folder of the run directory (runs)
"""

CONVERT_USAGE = """\
usage: snnrobust convert [experiment=NAME] [conversion=NAME] [-m] [STAGE=RUN] [STAGE.key=value ...] [key=value ...]

Makes a robust ANN, prunes it, trains it on, converts it into a spiking network and trains that on. Every stage is a run
of snnrobust train, recorded as such; what is on record is not run again.

  experiment=digits_sparse          a named conversion; conversion.sparsity=0.95 conversion.pruning=magnitude, ...
  conversion=dense                  another order of stages, see conf/conversion/
  conversion.result=tuned           where to stop
  ann=RUN                           begin with a run; its dataset, model and seed are those of the other stages
  snn.training.epochs=20            settings of one stage
  dataset=... model=... seed=...    settings of all stages
  suite=... estimator=...           by what the result is judged
  -m                                a sweep over comma-separated values
  --cfg job                         print the commands of the stages, and run nothing
"""

EXPORT_USAGE = """\
usage: snnrobust export RUN [format=FORMAT] [out=FILE]

Writes the network of a run (its directory, or the checkpoint in it) into a file, and reads it again. FORMAT is one of

  sparse            weights, thresholds and statistics; of sparse weights what is not zero (weights.sparse.safetensors)
  safetensors       the same with every zero, as any library reads it (weights.safetensors)
  nir               the network as a graph for other simulators and neuromorphic hardware (network.nir)

sparse unless said otherwise. The file lies in the run directory, or is FILE; an older one is replaced.
"""

SYNC_USAGE = """\
usage: snnrobust sync [FOLDER] [jobs=4]

Uploads the runs under FOLDER (runs) that were tracked offline to the W&B server: each of them once, so many at a time.
Runs that are still going on are left for later. Interrupted, the same command goes on; several share the work.
The server and the key are those of the W&B client: `wandb login`, or WANDB_BASE_URL and WANDB_API_KEY.
"""
