"""What is cached, to do, half done and not needed, from a real store."""

import shutil

from sdx.planning.graph import State, walk
from sdx.store.batch_log import BatchLog
from tests.kit.plan_steps import backbone, corpus, generate, mix, step, train


def states(store, *steps):
    return {node.step.key: node.state for node in walk(store, steps)}


def test_inputs_come_first_each_step_once_in_the_order_of_the_run(store):
    model, rows = backbone(), corpus()
    answers = generate(model, rows)
    held_out = generate(model, rows, "heldout.jsonl")
    names = [node.step for node in walk(store, [held_out, answers])]
    assert names == [model, rows.inputs["file"], rows, held_out, answers]
    assert set(states(store, answers, held_out).values()) == {State.todo}


def test_what_is_behind_a_cached_step_is_not_needed_but_for_who_else_needs_it(store):
    model, rows = backbone(), corpus()
    answers = generate(model, rows)
    store.realise(answers)
    for inner in (rows, rows.inputs["file"]):
        shutil.rmtree(store.path(inner))
    found = states(store, answers)
    assert found[answers.key] is found[model.key] is State.cached
    assert found[rows.key] is found[rows.inputs["file"].key] is State.not_needed

    other = generate(model, rows, "heldout.jsonl")
    found = states(store, answers, other)
    assert found[answers.key] is State.cached
    assert found[rows.key] is found[rows.inputs["file"].key] is found[other.key] is State.todo


def test_an_interrupted_step_resumes_with_the_rows_of_its_log_which_is_left_as_it_is(store):
    answers = generate(backbone(), corpus())
    partial = store.path(answers).with_name(f"{answers.key}.partial")
    partial.mkdir(parents=True)
    log = partial / "rows.log"
    record = BatchLog(log)
    record.append([{"id": "a"}, {"id": "b"}])
    record.append([{"id": "c"}])
    torn = log.read_bytes() + b'{"id": "d"}\n{"id": "e"'
    log.write_bytes(torn)
    node = next(node for node in walk(store, [answers]) if node.step is answers)
    assert (node.state, node.done) == (State.resumes, 3)
    assert log.read_bytes() == torn


def test_an_interrupted_training_resumes_at_its_last_whole_checkpoint(config, store):
    trained = train(config, mix({}, ll=1), backbone())
    partial = store.path(trained).with_name(f"{trained.key}.partial")
    for name in ("step_50", "step_100", "step_150.partial"):
        (partial / "checkpoints" / name).mkdir(parents=True)
    node = walk(store, [trained])[-1]
    assert (node.state, node.done) == (State.resumes, 100)


def test_walking_writes_nothing(store):
    walk(store, [generate(backbone(), corpus()), step("unknown")])
    assert not store.root.parent.exists()
