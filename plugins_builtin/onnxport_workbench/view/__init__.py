"""A page that shows a model: modules, graph and source lines side by side, and what differs between two models."""

from onnxport_workbench.view.page import page_of, view

__all__ = ["page_of", "view"]
