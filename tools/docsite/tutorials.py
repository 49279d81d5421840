"""From a tutorial's source to a page with its outputs: run by jupyter, written as Markdown and as a notebook."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbconvert import MarkdownExporter

# Whoever wants to try a source by hand opens it in Jupyter with jupytext.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "TQDM_DISABLE": "1"}
# Seconds a cell may take; a crowded machine takes some times what an idle one does.
LIMIT = 1200


def run(source: Path, folder: Path, *, execute: bool = True) -> None:
    """Write `<name>.md`, its pictures and `<name>.ipynb` into a folder; what a cell raises is raised."""
    notebook = jupytext.read(source)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    if execute:
        os.environ.update(ENVIRONMENT)
        # The commands of a notebook are those of this environment.
        os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        os.environ.setdefault("CITLR_DATA", str(source.resolve().parents[2].parent / "shared" / "data"))
        with tempfile.TemporaryDirectory() as home:
            NotebookClient(notebook, timeout=LIMIT, resources={"metadata": {"path": home}}).execute()
            _forget(notebook, home)
    name = source.stem
    places = {"unique_key": name, "output_files_dir": f"{name}_files"}
    text, resources = MarkdownExporter().from_notebook_node(notebook, places)
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in (resources.get("outputs") or {}).items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(content)
    (folder / f"{name}.md").write_text(_page(text, name), encoding="utf-8")
    nbformat.write(notebook, folder / f"{name}.ipynb")


def _forget(notebook: nbformat.NotebookNode, home: str) -> None:
    """Take out what is of this machine: the folder in which it ran, and warnings, which are said here instead."""
    for cell in notebook.cells:
        for output in list(cell.get("outputs", ())):
            if output.get("name") == "stderr":
                print(output["text"], file=sys.stderr)
                cell.outputs.remove(output)
            elif "text" in output:
                output["text"] = output["text"].replace(home, ".")


def _page(text: str, name: str) -> str:
    """Say where the notebook is, and keep styles of tables out, which the site has its own of."""
    text = re.sub(r"<style scoped>.*?</style>\n?", "", text, flags=re.DOTALL)
    text = text.replace("![png](", "![what the code above draws](")
    title, rest = text.lstrip().split("\n", 1)
    return f"{title}\n\n[Download this page as a notebook]({name}.ipynb).\n{rest}"
