"""What the terminal shows while a training goes on."""

import io

from rich.console import Console

from snnrobust.console import Terminal, results_title


def test_the_bar_of_a_training_that_stops_early_ends_full():
    terminal = Terminal()
    terminal.console, terminal.quiet = Console(file=io.StringIO(), force_terminal=True, width=100), False
    with terminal.training("train", 10) as advance:
        for loss in (0.75, 0.5, 0.25):
            advance(loss, 0.5)
    shown = terminal.console.file
    assert isinstance(shown, io.StringIO)
    assert "3/3" in shown.getvalue()
    assert "loss 0.250  accuracy 50.0 %" in shown.getvalue()


def test_the_title_of_a_run_names_its_defence():
    choices = {"dataset": "digits", "model": "convnet", "regularizer": "gradient_sparsity", "defence": "trades"}
    config = {"regularizer": {"weight": 0.01}, "threat": {"_target_": "snnrobust.threat.Linf", "eps": 0.1}, "seed": 3}
    title = "digits, convnet, gradient_sparsity, weight 0.01, trades, eps 0.1, seed 3"
    assert results_title({"choices": choices, "config": config}) == title
    assert results_title({"choices": choices | {"defence": "none"}, "config": config}) == title.replace(" trades,", "")
