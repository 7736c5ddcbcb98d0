"""Speaks the protocol of sdx/generation/vllm_child.py without vLLM, which this machine may lack.

An answer is the prompt's last two tokens and the first of its stops. FAKE_NOTES names the file for what it was asked
and its environment; FAKE_MODE says what goes wrong.
"""

import json
import os
import sys
import time

mode = os.environ.get("FAKE_MODE", "")
print('[1, 2, 3]\n{"context": "what a library prints"}', flush=True)
with open(os.environ["FAKE_NOTES"], "a") as notes, os.fdopen(int(sys.argv[1]), "w") as answers:
    print(json.dumps({"pid": os.getpid(), "environment": dict(os.environ)}), file=notes, flush=True)
    for number, line in enumerate(sys.stdin):
        request = json.loads(line)
        print(line, end="", file=notes, flush=True)
        if mode == "slow":
            time.sleep(1)
        if mode == "dies" and number == 2:
            answers.write("[[1, 2")
            answers.flush()
            print("loading\nValueError: no room for the cache", file=sys.stderr, flush=True)
            os._exit(1)
        reply = {"context": 300}
        if number:
            asked = zip(request["prompts"], request["params"], strict=True)
            reply = [[*prompt[-2:], params["stop_token_ids"][0]] for prompt, params in asked]
        print(json.dumps(reply), file=answers, flush=True)
