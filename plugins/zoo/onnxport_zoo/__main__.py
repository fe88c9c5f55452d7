"""``python -m onnxport_zoo run|diff|page``: the commands of ``onnxport zoo``, without the command line of onnxport."""

from onnxport_zoo.commands import zoo

if __name__ == "__main__":
    zoo()
