# What type checkers see of the package; at run time they are imported when they are asked for.
from snnrobust.api import evaluate as evaluate
from snnrobust.api import flags as flags
from snnrobust.api import load as load

__version__: str
