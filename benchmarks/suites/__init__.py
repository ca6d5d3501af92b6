"""What is measured, a file per suite: each has ``run(effort)``, and says in its docstring what."""
