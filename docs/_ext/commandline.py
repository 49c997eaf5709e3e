"""The help texts of the command line, as the program prints them."""

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


class CommandHelp(SphinxDirective):
    """`{command-help}` shows the help of `markovot`, or of the command that it is given."""

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        """A literal block."""
        import click

        from markovot.cli.app import app

        command: click.Command = app
        names = self.arguments[0].split() if self.arguments else []
        context = click.Context(app, info_name="markovot", terminal_width=88)
        for name in names:
            found = app.get_command(context, name)
            if found is None:
                raise self.error(f"markovot has no command {name!r}")
            command, context = found, click.Context(found, info_name=name, parent=context, terminal_width=88)
        text = command.get_help(context)
        return [nodes.literal_block(text, text, language="text")]


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("command-help", CommandHelp)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
