"""``gpool top``: the Observer in a terminal, with Textual (``pip install 'gpool[tui]'``).

    app.py         the screen with its tabs; asks the node again and again
    view.py        what a view is: it has questions, and shows the answers
    table.py       a table that keeps its cursor while its rows change
    processes.py   tree.py   pools.py   events.py     the views in the tabs
    process.py     the window of one process
    dialogs.py     help, and what is to be confirmed
    actions.py     what one may do to a process or a pool

It runs in a process of its own; the library never imports it.
"""
