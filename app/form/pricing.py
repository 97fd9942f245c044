"""The cost card: always true to the form, and measured on request."""

from collections.abc import Mapping
from typing import Any

import gradio as gr

from app.form import controls, cost, cost_card, data_form, prompts
from app.form.controls import Controls
from app.form.starting import Guest, taken
from app.jobs.store import JobStore
from app.quiet import LONG, QUIET

TIMING = "Timing a few steps, whose result is thrown away …"


def parts(price: str, measured: bool) -> tuple[gr.HTML, gr.Button]:
    """Return the card and the button that has the choice timed."""
    card = gr.HTML(price, elem_id="zo-card", elem_classes="zo-card")
    return card, gr.Button("Time a few steps", size="sm", visible=not measured, elem_id="zo-time")


def shown(store: JobStore, values: Mapping[str, Any]) -> tuple[str, Any, Any]:
    """Return the card, the Start button and the timing button for what the form says."""
    try:
        config = taken(store, controls.collect(values, store.limits))
        prompts.measure_texts(config, store.files)
        price = cost.cost(config, store.speeds)
    except ValueError as error:
        blocked = gr.update(value="See the card: cannot start", interactive=False)
        return cost_card.problem(str(error)), blocked, gr.update(visible=False)
    start = gr.update(value=price.blocker or "Start", interactive=not price.blocker)
    here = price.download == 0 and not price.blocker
    return cost_card.card(price), start, gr.update(visible=here and not price.measured and not price.lent)


def connect(
    form: Controls,
    store: JobStore,
    visitor: gr.BrowserState,
    outputs: list[Any],
    note: gr.HTML,
    phase: gr.HTML,
) -> None:
    """Keep the card, the Start button and the timing button true to the form, and to what a run's phases taught.

    `note` says what a timing does or why it failed; `phase` changes with the phase of the run shown.
    """
    timed = outputs[2]

    def priced(*values: Any) -> tuple[str, Any, Any]:
        return shown(store, form.named(values))

    def time_it(visitor: str, request: gr.Request, *values: Any) -> str:
        guest = Guest.of(store, visitor, request)
        try:
            config = taken(store, controls.collect(form.named(values), store.limits))
            store.may_ask(guest.secret, guest.address)
            store.speeds.learn(config, store.models.ask("seconds", config=config.to_json()))
        except ValueError as error:
            return data_form.error(f"The steps could not be timed: {error}")
        return ""

    changes = [part.change for part in (*form.inputs, phase) if hasattr(part, "change")]
    gr.on(changes, priced, form.inputs, outputs, **QUIET, trigger_mode="always_last")
    begun = timed.click(lambda: f"<p class='zo-quiet'>{TIMING}</p>", None, note, **QUIET)
    done = begun.then(time_it, [visitor, *form.inputs], note, **LONG)
    done.then(priced, form.inputs, outputs, **QUIET)
