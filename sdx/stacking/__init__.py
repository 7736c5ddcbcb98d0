"""The steps of MT-encoder stacking: texts, the first stack, trainings of its parts, vectors, answers."""
