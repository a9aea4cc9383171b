"""The parts of the `lab` command. Each has `mount(cli)`, which adds its commands."""
