"""predict.py as a user calls it."""

import json

import predict


def ask(run, checkpoint, *options):
    return run(predict.main, "--checkpoint", checkpoint, "--device", "cpu", *options)


def answers(out):
    return [json.loads(line) for line in out.splitlines()]
