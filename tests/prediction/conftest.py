"""Call predict.py as a user does."""

import json

import predict


def ask(run, checkpoint, *options):
    return run(predict.main, "--checkpoint", checkpoint, "--device", "cpu", *options)


def answers(out):
    return [json.loads(line) for line in out.splitlines()]
